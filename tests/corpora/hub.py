"""A Hugging Face Hub of one dataset on this machine: the few addresses huggingface_hub asks to list and read files."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.corpora.loopback import Loopback


class Hub(Loopback):
    """Serves `files` of the dataset `owner/name` at one commit, whichever revision is asked for; counts the bytes."""

    def __init__(self, files: dict[str, bytes], *, name: str = "nobody/articles", commit: str) -> None:
        self.files = files
        self.name = name
        self.commit = commit
        self.sent = 0
        super().__init__()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                if path.startswith(f"/datasets/{hub.name}/resolve/"):
                    name = path.removeprefix(f"/datasets/{hub.name}/resolve/").split("/", 1)[1]
                    self._file(hub.files.get(name))
                elif path.startswith(f"/api/datasets/{hub.name}/tree/"):
                    folder = path.removeprefix(f"/api/datasets/{hub.name}/tree/").partition("/")[2]
                    self._json(hub.listed(folder, whole="recursive=true" in self.path.lower()))
                elif path.startswith(f"/api/datasets/{hub.name}"):
                    self._json({"id": hub.name, "sha": hub.commit, "siblings": []})
                else:
                    self._answer(404, b"{}")

            do_HEAD = do_GET

            def _file(self, content: bytes | None) -> None:
                if content is None:
                    self._answer(404, b"")
                    return
                headers = {"ETag": '"etag"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
                asked = self.headers.get("range")
                if not asked:
                    self._answer(200, content, headers)
                    return
                first, _, last = asked.removeprefix("bytes=").partition("-")
                stop = min(int(last) + 1 if last else len(content), len(content))
                headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(content)}"
                self._answer(206, content[int(first) : stop], headers)

            def _json(self, value: Any) -> None:
                self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

            def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                    hub.sent += len(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler

    def listed(self, folder: str, *, whole: bool) -> list[dict[str, Any]]:
        """The files and folders in a folder, and in those if `whole`."""
        files = [Path(name) for name in self.files]
        there = {path for file in files for path in (file, *file.parents[:-1])}
        inside = sorted(p for p in there if (Path(folder) in p.parents if whole else p.parent == Path(folder)))
        return [
            {"type": "file", "path": str(path), "size": len(self.files[str(path)]), "oid": "0" * 40}
            if path in files
            else {"type": "directory", "path": str(path), "oid": "0" * 40}
            for path in inside
        ]
