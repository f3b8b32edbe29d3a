"""The one HTTP client besides the ledger's: what it sends, to whom it shows a key, and that there is no other."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nift_training import http_client
from tests.conftest import PROJECT


class Server(ThreadingHTTPServer):
    """Says what it was sent; `/elsewhere` sends whoever comes to the same server under another name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None, str | None, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, self.headers["Authorization"], self.headers["Content-Type"], body))
        self.send_response({"/elsewhere": 302, "/busy": 503}.get(self.path, 200))
        self.send_header("Location", f"http://localhost:{self.server.server_port}/there")
        self.end_headers()
        self.wfile.write(b"said")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_json_object_is_sent_and_the_answer_comes_as_it_is(server: Server) -> None:
    assert http_client.post(f"{server.url}/hook", {"text": "é"}, seconds=10) == b"said"
    assert server.seen == [("/hook", None, "application/json", b'{"text": "\\u00e9"}')]


def test_a_key_does_not_go_to_wherever_the_server_sends_us(server: Server) -> None:
    assert http_client.get(f"{server.url}/elsewhere", seconds=10, key="secret") == b"said"
    assert [(path, key) for path, key, *_ in server.seen] == [("/elsewhere", "Bearer secret"), ("/there", None)]


def test_a_refusal_says_its_status_and_its_words(server: Server) -> None:
    with pytest.raises(http_client.HttpRefused) as refused:
        http_client.get(f"{server.url}/busy", seconds=10)
    assert (refused.value.code, refused.value.read()) == (503, b"said")


def test_there_is_no_other_client_but_the_ledgers_and_those_of_libraries() -> None:
    clients = {"urllib.request": "nift_training/http_client.py", "requests": "", "http.client": "", "urllib3": ""}
    found = {
        (str(path.relative_to(PROJECT)), module)
        for package in ("nift_assets", "nift_training", "dagster_project", "expectations")
        for path in (PROJECT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in (
            [node.module or ""]
            # The error of a response that breaks off is no client.
            if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] != ["HTTPException"]
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if module in clients
    }
    assert found == {(clients["urllib.request"], "urllib.request")}
