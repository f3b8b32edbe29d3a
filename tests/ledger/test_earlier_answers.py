"""T25: where the limit of tokens was raised, only answers that were cut at it are asked for again."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets import providers
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import ask
from nift_assets.ledger.report import report
from nift_assets.protocol import Message, Request
from nift_assets.protocol.request import LIMITS, canonical, restored
from nift_assets.rows import LanguageModel, Limits
from tests.counting import Counts
from tests.ledger.asking import PRICE
from tests.ledger.fault_server import FaultServer, expected_words
from tests.ledger.test_integrity import VERSION_2
from tests.ledgers import answered, play, rejected, unknown

pytestmark = pytest.mark.usefixtures("test_key")

ASKER = Asker(study="s", who="t", writer="s/t")
ROW = LanguageModel(
    name="t",
    provider="openai",
    model="m",
    base_url="http://127.0.0.1:1/v1",
    key_variable="TEST_KEY",
    max_tokens=40,
)
TEXTS = [f"text {number}" for number in range(50)]
WORDS = {text: len(expected_words(text, "m")) for text in TEXTS}


def requests(row: LanguageModel, texts: Sequence[str] = TEXTS) -> list[Request]:
    return [providers.request(row, text) for text in texts]


def sent(book: Book, faultless: FaultServer, row: LanguageModel, asker: Asker = ASKER) -> list[str]:
    """The texts that reach the server when a row asks all; what it is answered is what the server says to its row."""
    before = len(faultless.bills())
    connected = providers.load(row.provider).connect(replace(row, base_url=f"{faultless.url}/v1"), None)
    asked = ask(book, asker, requests(row), connected, limits=Limits(in_flight=8), price=PRICE)
    bills = faultless.bills()[before:]
    assert len(bills) == asked.sent
    expected = [" ".join(expected_words(text, "m")[: row.max_tokens]) for text in TEXTS]
    assert [answer.text for answer in asked.answers] == expected
    return sorted(str(bill.prompt) for bill in bills)


def cut_at(limit: int) -> list[str]:
    return sorted(text for text in TEXTS if WORDS[text] > limit)


@pytest.mark.fault("T25", runs="50 answers")
def test_only_what_was_cut_is_asked_again(ledger_url: str, faultless: FaultServer, counts: Counts) -> None:
    book = Book(ledger_url)
    assert sent(book, faultless, ROW) == sorted(TEXTS)
    higher = replace(ROW, max_tokens=60)
    cut = cut_at(40)
    assert 0 < len(cut) < 50
    planned = {r.key for r in requests(higher)} - book.settled(requests(higher), reuse_below_limit=True)
    assert len(planned) == len(cut)
    before = report(book).accounts[0]
    assert sent(book, faultless, higher) == cut
    after = report(book).accounts[0]
    assert after.reused == 50 - len(cut)
    assert after.sent - before.sent == len(cut)
    assert sent(book, faultless, higher) == []
    # Without any limit it is the highest of all; what is taken over twice is still the first one's.
    unlimited = replace(ROW, max_tokens=None)
    assert sent(book, faultless, unlimited) == cut_at(60)
    origins = {request.key for request in [*requests(ROW), *requests(higher)]}
    with book.reading() as connection:
        taken = connection.execute(sa.text("select taken_from from answers where taken_from is not null")).scalars()
        assert set(taken) <= origins
    name = "SQLite" if ledger_url.startswith("sqlite") else "PostgreSQL"
    counts("T25", f"{name}: 50 answers, {len(cut)} cut at the limit: {len(cut)} sent under a higher one")


def test_a_row_may_ask_all_of_it_again(sqlite_url: str, faultless: FaultServer) -> None:
    book = Book(sqlite_url)
    sent(book, faultless, ROW)
    assert sent(book, faultless, replace(ROW, max_tokens=60), replace(ASKER, reuse_below_limit=False)) == sorted(TEXTS)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 39},
        {"max_tokens": 60, "temperature": 0.5},
        {"max_tokens": 60, "model": "m2"},
        {"max_tokens": 60, "system_prompt": "Go on."},
        {"max_tokens": 60, "provider": "anthropic"},
        {"max_tokens": 60, "base_url": "https://models.example/v1"},
    ],
)
def test_nothing_else_may_have_changed(change: dict[str, object], sqlite_url: str) -> None:
    book = Book(sqlite_url)
    play(book, "s", "t", [(request, answered("text")) for request in requests(ROW, TEXTS[:5])])
    assert book.settled(requests(replace(ROW, **change), TEXTS[:5]), reuse_below_limit=True) == set()  # type: ignore[arg-type]


def test_only_answers_that_ended_by_themselves_are_taken(sqlite_url: str) -> None:
    book = Book(sqlite_url)
    endings = [
        answered("whole"),
        answered("", finish_reason="stop"),
        answered("no", finish_reason="content_filter"),
        answered("half of", finish_reason="length"),
        answered("", finish_reason="length"),
        answered("who knows", finish_reason="eclipse"),
        answered("a tool", finish_reason="tool_calls"),
        rejected(),
        unknown(),
        None,
    ]
    low = requests(ROW, TEXTS[: len(endings)])
    play(book, "s", "t", list(zip(low, endings, strict=True)))
    higher = requests(replace(ROW, max_tokens=60), TEXTS[: len(endings)])
    assert book.settled(higher, reuse_below_limit=True) == {request.key for request in higher[:3]}


def test_what_is_answered_in_this_process_is_made_again(sqlite_url: str) -> None:
    book = Book(sqlite_url)
    row = LanguageModel(name="e", provider="echo", model="continue", max_tokens=20)
    connected = providers.load("echo").connect(row, None)
    assert ask(book, ASKER, requests(row), connected).sent == 50
    assert ask(book, ASKER, requests(replace(row, max_tokens=30)), connected).sent == 50


def test_an_answer_of_the_first_ledgers_is_found_as_well(tmp_path: Path, faultless: FaultServer) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        connection.executescript(VERSION_2.read_text())
    book = Book(f"sqlite:///{tmp_path}/ledger.sqlite")
    with book.reading() as connection:
        bodies = connection.execute(sa.text("select body from requests")).scalars().all()
    low = [restored(body) for body in bodies]
    assert {request.output_limit for request in low} == {20}
    higher = [replace(request, parameters={**request.parameters, "max_tokens": 30}) for request in low]
    assert len(book.settled(higher, reuse_below_limit=True)) == 5


@pytest.mark.parametrize("limit", LIMITS)
def test_the_key_without_a_limit_is_the_key_of_the_request_without_it(limit: str) -> None:
    asked = Request(
        provider='p"arameters',
        model="m",
        messages=(Message(role="user", content='"parameters": {"max_tokens": 5}, "provider": "p"} \ud800 ä'),),
        parameters={limit: 7, "a": "ü", "stop": ['", "provider": "x"}']},
    )
    others = {"a": "ü", "stop": ['", "provider": "x"}']}
    assert asked.key == hashlib.sha256(asked.body().encode("utf-8", "surrogatepass")).hexdigest()
    assert (
        asked.limitless_key == replace(asked, parameters=others).key == replace(asked, parameters=others).limitless_key
    )
    assert restored(canonical({**_fields(asked)})).key == asked.key


def _fields(request: Request) -> dict[str, object]:
    return {
        "provider": request.provider,
        "endpoint": request.endpoint,
        "api_version": request.api_version,
        "model": request.model,
        "messages": [[message.role, message.content] for message in request.messages],
        "parameters": request.parameters,
        "draw": request.draw,
    }


ANY_TEXTS = st.text(st.characters())  # surrogates as well
ANY_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXTS | st.lists(ANY_TEXTS)
ANY_REQUESTS = st.builds(
    Request,
    provider=ANY_TEXTS,
    model=ANY_TEXTS,
    messages=st.lists(
        st.builds(Message, role=st.sampled_from(("system", "user", "assistant")), content=ANY_TEXTS), max_size=3
    ).map(tuple),
    parameters=st.dictionaries(ANY_TEXTS | st.sampled_from(LIMITS), ANY_VALUES, max_size=4),
    endpoint=ANY_TEXTS,
    api_version=st.none() | ANY_TEXTS,
    draw=st.integers(0, 5),
)


@settings(deadline=None)
@given(ANY_REQUESTS)
def test_a_body_is_the_canonical_json_of_its_request(asked: Request) -> None:
    """It is put together by hand, for it is made for every question; the encoder says what it has to be."""
    assert asked.body() == canonical(_fields(asked))
    assert restored(asked.body()) == asked
    assert asked.key == hashlib.sha256(asked.body().encode("utf-8", "surrogatepass")).hexdigest()
    others = {name: value for name, value in asked.parameters.items() if name not in LIMITS}
    assert asked.limitless_key == replace(asked, parameters=others).key
