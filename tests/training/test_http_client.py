"""The one HTTP client besides the ledger's: what it sends, to whom it shows a key, and that there is no other."""

from __future__ import annotations

import ast
import socket
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


def test_what_is_on_this_machine_is_asked_past_any_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert http_client.get(f"{server.url}/models", seconds=10, key="secret") == b"said"
        assert http_client.get("http://elsewhere.invalid/file", seconds=10) == b"said", "else a proxy is what is asked"
        proxy.shutdown()
        assert [path for path, *_ in proxy.seen] == ["http://elsewhere.invalid/file"]
    assert [(path, key) for path, key, *_ in server.seen] == [("/models", "Bearer secret")]


@pytest.mark.parametrize("said", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"])
def test_who_speaks_no_http_or_breaks_off_is_an_error_of_the_system(said: bytes) -> None:
    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(OSError, match=r"speaks no HTTP|broke off"):
            http_client.get(f"http://127.0.0.1:{listening.getsockname()[1]}/models", seconds=10)


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
