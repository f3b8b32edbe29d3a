"""Dagster's UI as a person has it: `nift ui` in a process of its own, ready when it can be asked, ended by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_SECONDS = 240
# Usually ten: it is there for what hangs, not for a machine that is busy.
STOP_SECONDS = 180
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } }
} } } }
"""
# A proxy of the environment has no business between two processes of one machine.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class UI:
    """A running UI: its address, its process, how long it took to be ready, and what has to be shown to it."""

    url: str
    pid: int
    log: Path
    seconds: float

    @property
    def entrance(self) -> str:
        """The address that it has said, with the token that it has made for this start."""
        said = re.search(rf"{self.url}/\?token=[0-9a-f]{{32}}", self.log.read_text(errors="replace"))
        return said[0] if said else self.url

    @property
    def signed(self) -> dict[str, str]:
        """The header that shows the token."""
        return {"Authorization": f"Bearer {self.entrance.partition('=')[2]}"}

    def page(self, path: str = "/") -> str:
        with DIRECT.open(urllib.request.Request(self.url + path, headers=self.signed), timeout=30) as response:
            return response.read().decode()

    def graphql(self, query: str, variables: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The `data` of a GraphQL answer; an error of the query itself fails here."""
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json", **self.signed}
        )
        with DIRECT.open(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def locations(self) -> list[dict[str, Any]]:
        """Each code location: its name, whether it is loaded, and the error if that went wrong."""
        return self.graphql(LOCATIONS)["workspaceOrError"]["locationEntries"]


@contextmanager
def ui(
    environment: Mapping[str, str], folder: Path, *arguments: str, stop_seconds: float = STOP_SECONDS
) -> Iterator[UI]:
    """The UI of the study `environment` names, started in `folder`, until the block ends.

    Leaving the block sends the one signal that Ctrl-C sends, to the one process that was started: that all the
    others end with it, and in time, is part of what is tested.
    """
    port = free_port()
    command = [str(Path(sys.executable).with_name("nift")), "ui", "--port", str(port), *arguments]
    log = folder / f"ui-{port}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_loaded(UI(url, process.pid, log, 0), process)
        yield UI(url, process.pid, log, time.monotonic() - began)
    finally:
        stop(process, log, stop_seconds)


def stop(process: subprocess.Popen[bytes], log: Path, seconds: float) -> float:
    """The seconds it took the UI to end after Ctrl-C; what is left of it after so many is killed, and fails."""
    began = time.monotonic()
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        while (process.poll() is None or _alive(process.pid)) and time.monotonic() - began < seconds:
            time.sleep(0.2)
        assert not _alive(process.pid), f"processes of the UI outlived it by {seconds} s\n{_tail(log)}"
        return time.monotonic() - began
    finally:
        if _alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_loaded(found: UI, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"`nift ui` ended with {process.returncode}\n{_tail(found.log)}"
        try:
            locations = found.locations()
        except OSError:  # it does not listen yet
            locations = []
        if locations and all(location["loadStatus"] == "LOADED" for location in locations):
            return
        time.sleep(0.5)
    raise AssertionError(f"the UI was not ready after {READY_SECONDS} s\n{_tail(found.log)}")


def _alive(group: int) -> bool:
    """Whether any process of the session is left; a zombie that its parent has not waited for is not."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended while we looked
            continue
        if int(pgrp) == group and state != "Z":
            return True
    return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
