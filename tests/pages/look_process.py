"""`nift look` as a person has it: a process of its own, ready when it can be asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_assets.pages.viewer import links
from tests.ui.server import DIRECT, free_port

STOP_SECONDS = 60


@dataclass(frozen=True)
class LookProcess:
    """A running viewer: its process, where it is reached, and the token that has to be shown to it."""

    process: subprocess.Popen[str]
    url: str
    token: str

    @property
    def entrance(self) -> str:
        """The address that it has said."""
        return f"{self.url}{links.ROOT}?token={self.token}"

    def page(self, path: str) -> str:
        """A page by its path; HTTPError where it is none."""
        with DIRECT.open(self._request(path), timeout=300) as answer:
            return answer.read().decode()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What is answered to JSON that is sent; HTTPError if it is refused, another OSError if nobody answers."""
        with DIRECT.open(self._request(path, json.dumps(body).encode()), timeout=60) as answer:
            return json.load(answer)

    def _request(self, path: str, body: bytes | None = None) -> urllib.request.Request:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        return urllib.request.Request(self.url + path, body, headers)


@contextmanager
def looking(
    root: Path | str, study: str = "demo", environment: Mapping[str, str] | None = None
) -> Iterator[LookProcess]:
    """The viewer of a study under a root, until the block ends; it may have been killed by then."""
    port = free_port()
    told = {**os.environ, "NIFT_WAREHOUSE": str(root), "NIFT_STUDY": study, **(environment or {})}
    command = [str(Path(sys.executable).with_name("nift")), "look", "--port", str(port)]
    with subprocess.Popen(command, env=told, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert "token=" in said, said
            yield LookProcess(process, f"http://127.0.0.1:{port}", said.partition("token=")[2].split()[0])
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
