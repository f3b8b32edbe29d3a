"""A served base model: the first half alone is sent, its continuation is kept, other rows are refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nift_assets import providers
from nift_assets.ledger import door
from nift_assets.ledger.book import Asker, Book
from nift_assets.prompts import completions
from nift_assets.rows import Limits, Teacher

HALVES = pl.DataFrame(
    {
        "document_id": ["d", "e"],
        "sample_rank": [1, 2],
        "first_half": ["The bridge", "The mill"],
        "second_half": [" fell.", " burnt."],
    }
)
TEACHER = Teacher(
    name="served-base", provider="text_completions", model="m/base", base_url="http://127.0.0.1:1/v1", max_tokens=64
)


class Server(ThreadingHTTPServer):
    """Goes on with every text as vLLM does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, body))
        cut = "mill" in body["prompt"]
        answer = {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": body["model"],
            "choices": [{"index": 0, "text": " stood for a year.", "finish_reason": "length" if cut else "stop"}],
            "usage": {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7},
        }
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_text_goes_out_bare_and_its_continuation_comes_back_once(server: Server, tmp_path: Path) -> None:
    teacher = replace(TEACHER, base_url=server.url, limits=Limits(backoff_seconds=0.05))
    requests = completions.requests(teacher, HALVES)
    book, asker = Book(f"sqlite:///{tmp_path}/ledger.sqlite"), Asker(study="s", who=teacher.name, writer="w")
    for _ in range(2):
        asked = door.ask(book, asker, requests, providers.load(teacher.provider).connect(teacher, None))
    rows = completions.rows(teacher, HALVES, requests, asked.answers)
    assert rows.select("status", "completion", "input_tokens", "output_tokens").rows() == [
        ("ok", " stood for a year.", 2, 5),
        ("truncated", " stood for a year.", 2, 5),
    ]
    assert {path for path, _ in server.asked} == {"/v1/completions"}
    assert sorted(body["prompt"] for _, body in server.asked) == ["The bridge", "The mill"]
    assert all(body["max_tokens"] == 64 and "messages" not in body for _, body in server.asked)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base_url": None}, "name the server in base_url"),
        ({"system_prompt": "Go on."}, "a base model has no system prompt"),
        ({"max_tokens": None}, "often 16 tokens; set max_tokens"),
    ],
)
def test_a_row_without_a_place_in_the_protocol_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        providers.load(TEACHER.provider).check(replace(TEACHER, **change))


@pytest.mark.parametrize(
    "choice", [{"finish_reason": "stop"}, {"text": "so on"}, {"text": "so on", "finish_reason": None}]
)
def test_half_a_response_is_no_answer(choice: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        providers.load(TEACHER.provider).read({"choices": [choice]})
