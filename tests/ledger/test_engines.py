"""An answer is known by what gave it: a server that moves is not asked again, two on one host are not taken for one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from nift_assets import providers, studies
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import ask
from nift_assets.protocol import engines
from nift_assets.rows import LanguageModel, Limits, Teacher
from nift_assets.steps import asking
from nift_assets.study import Study
from tests.ledger.asking import PRICE
from tests.ledger.fault_server import FaultServer

pytestmark = pytest.mark.usefixtures("test_key")

ASKER = Asker(study="s", who="t", writer="s/t")
ROW = LanguageModel(name="t", provider="openai", model="m", base_url="http://127.0.0.1:1/v1", key_variable="TEST_KEY")
TEXTS = [f"text {number}" for number in range(20)]


def sent(book: Book, faultless: FaultServer, row: LanguageModel) -> int:
    """How many requests leave when a row asks all, wherever it says that its server stands."""
    connected = providers.load(row.provider).connect(replace(row, base_url=f"{faultless.url}/v1"), None)
    questions = [providers.request(row, text) for text in TEXTS]
    before = len(faultless.bills())
    planned = len({question.key for question in questions} - book.settled(questions, reuse_below_limit=True))
    asked = ask(book, ASKER, questions, connected, limits=Limits(in_flight=8), price=PRICE)
    assert {answer.status for answer in asked.answers} == {"ok"}
    assert planned == asked.sent == len(faultless.bills()) - before
    return asked.sent


@pytest.mark.fault("T29", runs="20 answers")
def test_a_server_whose_engine_is_known_may_move(ledger_url: str, faultless: FaultServer) -> None:
    book = Book(ledger_url)
    here = replace(ROW, engine="vllm 0.10.1")
    assert sent(book, faultless, here) == 20
    moved = replace(here, base_url="http://gpu7.example.org:9000/v1")
    assert sent(book, faultless, moved) == 0
    assert moved.shape() == here.shape(), "nothing made of its answers is stale"
    assert sent(book, faultless, replace(moved, engine="vllm 0.11.0")) == 20, "another engine is asked"


def test_without_an_engine_the_host_is_what_answers(ledger_url: str, faultless: FaultServer) -> None:
    book = Book(ledger_url)
    assert sent(book, faultless, ROW) == 20
    assert sent(book, faultless, replace(ROW, base_url="http://[::1]:2/v1/")) == 0
    assert sent(book, faultless, replace(ROW, base_url="http://gpu7.example.org/v1")) == 20


def test_what_was_answered_before_an_engine_was_named_counts_where_the_row_says_so(
    ledger_url: str, faultless: FaultServer
) -> None:
    book = Book(ledger_url)
    assert sent(book, faultless, ROW) == 20
    named = replace(ROW, engine="vllm 0.10.1", formerly="local")
    assert sent(book, faultless, named) == 0
    assert sent(book, faultless, replace(named, formerly=None)) == 0, "it is answered under its own key by now"
    moved = replace(ROW, base_url="http://gpu7.example.org/v1", formerly="local")
    assert sent(book, faultless, moved) == 0
    other = replace(ROW, engine="vllm 0.11.0", formerly="elsewhere.example.org")
    assert sent(book, faultless, other) == 20, "what was answered elsewhere is no answer of this"


def test_rows_that_state_no_engine_have_the_keys_and_the_shape_that_they_had() -> None:
    question = providers.request(ROW, "text")
    assert question.endpoint == "local"
    assert json.loads(question.body()).keys() == {
        "api_version", "draw", "endpoint", "messages", "model", "parameters", "provider"
    }  # fmt: skip
    assert {"engine", "formerly"}.isdisjoint(ROW.shape())
    assert ROW.shape()["base_url"] == ROW.base_url


@pytest.mark.fault("T29", runs="2 servers of one host")
@pytest.mark.parametrize("places", [("http://127.0.0.1:1/v1", "http://localhost:2/v1"), ("http://g/a", "http://g/b")])
def test_of_two_servers_that_nothing_tells_apart_none_is_asked(places: tuple[str, str]) -> None:
    rows = [Teacher(name=f"t{n}", provider="openai", model="m", base_url=place) for n, place in enumerate(places)]
    # What was made with such a study can be read.
    study = of_teachers(*rows)
    for row in rows:
        with pytest.raises(ValueError, match=r"ask for 'm' at .*; give each row an engine") as refused:
            asking.refuse_twin(study, row)
        assert "\n" not in str(refused.value)
    told = [replace(row, engine=f"vllm {n}") for n, row in enumerate(rows)]
    assert len({providers.request(row, "text").key for row in told}) == 2
    alike = [replace(row, engine="the same") for row in rows]
    same = [rows[0], replace(rows[1], base_url=f"{places[0].replace('127.0.0.1', 'localhost')}/")]
    for harmless in (told, alike, same, [rows[0], told[1]]):
        for row in harmless:
            asking.refuse_twin(of_teachers(*harmless), row)


def of_teachers(*rows: Teacher) -> Study:
    demo = studies.load("demo")
    return replace(demo, teachers=(*demo.teachers, *rows))


@pytest.mark.parametrize("field", ["engine", "formerly"])
@pytest.mark.parametrize("row", [{"base_url": None, "value": "vllm 1"}, {"base_url": "http://g/v1", "value": " "}])
def test_an_engine_without_a_server_of_ones_own_is_refused(field: str, row: dict[str, Any]) -> None:
    demo = studies.load("demo")
    wrong = Teacher(name="t", provider="openai", model="m", base_url=row["base_url"], **{field: row["value"]})
    with pytest.raises(ValueError, match=f"'t' has {field}="):
        replace(demo, teachers=(*demo.teachers, wrong))


# What the real servers answer: vLLM 0.10, llama.cpp's server, Ollama 0.5 and TGI 2.0, as their documentation has it.
ENGINES: dict[str, tuple[dict[str, Any], str | None]] = {
    "vllm": (
        {"/v1/models": {"data": [{"id": "m", "owned_by": "vllm", "root": "m"}]}, "/version": {"version": "0.10.1"}},
        "vllm 0.10.1",
    ),
    "vllm of a folder": (
        {"/v1/models": {"data": [{"id": "m", "owned_by": "vllm", "root": "/w/q"}]}, "/version": {"version": "0.10.1"}},
        "vllm 0.10.1 /w/q",
    ),
    "llama.cpp": (
        {
            "/v1/models": {"data": [{"id": "m", "owned_by": "llamacpp"}]},
            "/props": {"build_info": "b4567-1a2b", "model_path": "/models/q8.gguf"},
        },
        "llama.cpp b4567-1a2b q8.gguf",
    ),
    "ollama": (
        {
            "/v1/models": {"data": [{"id": "m", "owned_by": "library"}]},
            "/api/version": {"version": "0.5.1"},
            "/api/tags": {"models": [{"name": "m", "digest": "0123456789abcdef0123"}]},
        },
        "ollama 0.5.1 0123456789abcdef",
    ),
    "tgi": (
        {
            "/v1/models": {"data": [{"id": "m", "owned_by": "m"}]},
            "/info": {"version": "2.0.1", "model_id": "m", "model_sha": "fedcba9876543210ff"},
        },
        "tgi 2.0.1 m fedcba9876543210",
    ),
    "another": ({"/v1/models": {"data": [{"id": "m"}]}}, None),
    "no list": ({"/v1/models": {"data": 3}}, None),
    "nothing": ({}, None),
}


@contextmanager
def answering(pages: dict[str, Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(pages.get(self.path, {})).encode()
            self.send_response(200 if self.path in pages else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


@pytest.mark.parametrize("name", ENGINES)
def test_servers_say_what_answers(name: str) -> None:
    pages, engine = ENGINES[name]
    with answering(pages) as url:
        assert engines.said(url, "m") == engine


@pytest.mark.fault("T29", runs="an engine of another version")
def test_a_server_that_is_another_than_its_row_says_is_not_asked() -> None:
    pages, found = ENGINES["vllm"]
    with answering(pages) as url:
        row = replace(ROW, base_url=url, key_variable=None)
        for stated in (None, found, "our third fine-tune", "vllm"):
            asking.refuse_other_engine(replace(row, engine=stated), providers.load("openai").connect(row, None))
        with pytest.raises(ValueError, match=r"says that vllm 0\.10\.1 answers, and the row has engine='vllm 0\.9\.0'"):
            asking.refuse_other_engine(replace(row, engine="vllm 0.9.0"), providers.load("openai").connect(row, None))
