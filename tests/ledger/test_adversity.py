"""What comes from outside and fits no plan: odd responses, a ledger that cannot be written, a lock that was lost."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from nift_assets import providers
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import ask
from nift_assets.ledger.tables import attempts, sessions, spending
from nift_assets.prompts import completions
from nift_assets.protocol.answer import MOST_TOKENS
from nift_assets.providers.openai import OpenAI
from nift_assets.rows import Limits, Price, Teacher
from tests.counting import Counts
from tests.ledger.asking import PRICE, books, provider, questions, wait
from tests.ledger.fault_server import FaultServer
from tests.postgres import postgres

Script = Callable[[str], tuple[int, dict[str, str], bytes]]
ASKER = Asker(study="s", who="t", writer="s/t", study_cap=10**12)
FAST = Limits(in_flight=8, backoff_seconds=0.02)


def whole(text: Any = "and so on", **changes: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 3}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage, **changes}).encode()


@contextmanager
def scripted(script: Script) -> Iterator[tuple[OpenAI, list[str]]]:
    """A server that answers each prompt as the script says, and the prompts it has seen."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = body["messages"][-1]["content"]
            seen.append(prompt)
            status, headers, answer = script(prompt)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield provider(f"http://127.0.0.1:{server.server_address[1]}"), seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(f"sqlite:///{tmp_path}/ledger.sqlite")


def taken(book: Book) -> tuple[int, int]:
    """What is spent and reserved in the study's account."""
    with book.reading() as connection:
        row = connection.execute(sa.select(spending.c.spent, spending.c.reserved).where(spending.c.who == "")).one()
    return row.spent, row.reserved


ODD_BUT_WHOLE = {
    "usage as text": ({}, whole(usage={"prompt_tokens": "3", "completion_tokens": None})),
    "negative usage": ({}, whole(usage={"prompt_tokens": -(10**12), "completion_tokens": 3})),
    "endless usage": ({}, whole(usage={"prompt_tokens": 10**30, "completion_tokens": True})),
    "usage is a list": ({}, whole(usage=[1])),
    "text in parts": ({}, whole([{"type": "text", "text": "and so"}, {"type": "text", "text": " on"}])),
    "half a character": ({}, whole("and so on").replace(b"so on", b"so \\ud83d")),
    "odd limits": ({"x-ratelimit-limit-requests": "-1", "x-ratelimit-reset-requests": "1.2.3s"}, whole()),
    "limits of nothing": ({"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1"}, whole()),
    "an id that is no text": ({"x-request-id": "\xff\xfe"}, whole()),
    "a very long id": ({"x-request-id": "x" * 5_000}, whole()),
}


@pytest.mark.fault("T13")
@pytest.mark.parametrize("odd", ODD_BUT_WHOLE)
def test_an_odd_answer_is_paid_once_and_kept(book: Book, odd: str) -> None:
    headers, body = ODD_BUT_WHOLE[odd]
    with scripted(lambda prompt: (200, headers, body)) as (server, seen):
        asked = ask(book, ASKER, questions(20), server, limits=FAST, price=PRICE)
        assert asked.counts == {"ok": 20}
        assert ask(book, ASKER, questions(20), server, price=PRICE).sent == 0
    assert len(seen) == 20
    spent, reserved = taken(book)
    assert spent > 0
    assert reserved == 0


@pytest.mark.parametrize(("stated", "counted"), [(MOST_TOKENS, MOST_TOKENS), (MOST_TOKENS + 1, None)])
def test_more_tokens_than_the_limit_are_no_count_and_cost_what_was_reserved(
    book: Book, stated: int, counted: int | None
) -> None:
    """`test_batches` asks the same of an answer that came by batch."""
    usage = {"prompt_tokens": stated, "completion_tokens": 3}
    with scripted(lambda prompt: (200, {}, whole(usage=usage))) as (server, _):
        assert ask(book, ASKER, questions(1), server, limits=FAST, price=PRICE).counts == {"ok": 1}
    with book.reading() as connection:
        attempt = connection.execute(sa.select(attempts)).one()
    assert (attempt.input_tokens, attempt.output_tokens) == (counted, 3)
    payload = json.dumps(server.payload(questions(1)[0])).encode()
    reserved = PRICE.cost(len(payload), PRICE.max_output)
    assert taken(book) == (PRICE.cost(counted, 3) if counted else reserved, 0)


@pytest.mark.parametrize("status", [202, 204])
def test_a_response_that_is_neither_an_answer_nor_an_error_spoils_one_row_only(book: Book, status: int) -> None:
    def script(prompt: str) -> tuple[int, dict[str, str], bytes]:
        return (status, {}, b"") if prompt == "text 3" else (200, {}, whole())

    with scripted(script) as (server, seen):
        for _ in range(2):
            asked = ask(book, ASKER, questions(20), server, limits=FAST, price=PRICE)
            assert asked.counts == {"ok": 19, "unknown": 1}
    assert seen.count("text 3") == 2


def test_a_deep_body_and_an_error_with_half_characters_end_their_own_rows_only(book: Book) -> None:
    def script(prompt: str) -> tuple[int, dict[str, str], bytes]:
        if prompt == "text 1":
            return 200, {}, b"[" * 100_000
        if prompt == "text 2":
            return 400, {}, b'{"error": {"message": "\\ud83d\\u0000", "code": "' + b"c" * 200 + b'"}}'
        return 200, {}, whole()

    with scripted(script) as (server, _):
        asked = ask(book, ASKER, questions(10), server, limits=FAST, price=PRICE)
    assert asked.counts == {"ok": 8, "unknown": 1, "rejected": 1}


def test_an_answer_with_half_a_character_becomes_a_row(book: Book) -> None:
    halves = pl.DataFrame({"document_id": ["a"], "sample_rank": [0], "first_half": ["x"], "second_half": ["y"]})
    teacher = Teacher(name="t", provider="openai", model="m")
    requests = completions.requests(teacher, halves)
    with scripted(lambda prompt: (200, {}, whole().replace(b"so on", b"so \\ud83d"))) as (server, _):
        asked = ask(book, ASKER, requests, server, limits=FAST)
    assert completions.rows(teacher, halves, requests, asked.answers)["completion"].to_list() == ["and so \ufffd"]


@pytest.mark.fault("T12")
def test_a_gateways_timeout_may_have_been_billed(book: Book, counts: Counts) -> None:
    def script(prompt: str) -> tuple[int, dict[str, str], bytes]:
        return (504, {}, b"<html>") if prompt == "text 3" else (200, {}, whole())

    with scripted(script) as (server, seen):
        asked = ask(book, ASKER, questions(20), server, limits=FAST, price=PRICE)
    assert asked.counts == {"ok": 19, "unknown": 1}
    assert seen.count("text 3") == 2
    assert taken(book)[1] > 0
    counts("T12", "a gateway's 504: sent twice at most, both reserved")


@pytest.mark.fault("T8")
def test_refusals_that_are_all_alike_are_about_the_account_and_none_is_final(book: Book, counts: Counts) -> None:
    answered, paid_up = iter(range(50)), threading.Event()

    def script(prompt: str) -> tuple[int, dict[str, str], bytes]:
        if not paid_up.is_set() and next(answered, None) is None:
            return 400, {}, b'{"error": {"message": "the account is closed", "code": "account"}}'
        return 200, {}, whole()

    with scripted(script) as (server, seen):
        first = ask(book, ASKER, questions(300), server, limits=FAST, price=PRICE)
        assert first.stopped is not None
        assert "refused alike: the account is closed" in str(first.stopped)
        assert first.counts == {"ok": 50, "pending": 250}
        assert len(seen) <= 50 + 20 + FAST.in_flight
        paid_up.set()
        second = ask(book, ASKER, questions(300), server, limits=FAST, price=PRICE)
    assert (second.sent, second.counts) == (250, {"ok": 300})
    assert taken(book)[1] == 0
    counts("T8", f"an account closed at 50 of 300: {len(seen) - 300} more sends, 0 rows refused for good")


def test_a_ledger_that_cannot_be_written_for_a_while_loses_no_answer(
    book: Book, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, counts: Counts
) -> None:
    exchange, calls = Book.exchange, [0]

    def failing(self: Book, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            # The worst kind: the commit went through, and the client never heard of it.
            exchange(self, *arguments, **named)
        if calls[0] in (6, 7):
            raise sa.exc.OperationalError("commit", {}, Exception("the server closed the connection"))
        return exchange(self, *arguments, **named)

    monkeypatch.setattr(Book, "exchange", failing)
    with FaultServer(latency=0.02) as server, caplog.at_level(logging.WARNING):
        asked = ask(book, ASKER, questions(300), provider(server.url), limits=Limits(in_flight=32), price=PRICE)
        bills = len(server.bills())
    assert asked.counts == {"ok": 300}
    assert bills == 300
    assert "the ledger cannot be written" in caplog.text
    spent, reserved = taken(book)
    with book.reading() as connection:
        booked = connection.execute(sa.select(sa.func.sum(attempts.c.spent))).scalar_one()
        states = dict(connection.execute(sa.select(attempts.c.state, sa.func.count()).group_by(attempts.c.state)).all())
    assert (spent, reserved) == (booked, 0)
    assert states.pop("answered") == 300
    assert set(states) <= {"failed"}, "what was admitted unheard never left"
    counts("T1", "a ledger that fails twice under way: 300 keys, 300 bills, 0 lost, the accounts agree")


@pytest.mark.fault("T23", runs="3 commits, 2 looks")
def test_a_commit_nobody_heard_of_and_a_failing_look_at_it_book_nothing_twice(
    book: Book, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    exchange, reconcile = Book.exchange, Book.reconcile
    fails = {"exchange": 3, "reconcile": 2}
    lost = sa.exc.OperationalError("commit", {}, Exception("the server closed the connection"))
    held: list[tuple[int, int]] = []

    def unheard(self: Book, session: int, asker: Asker, settled: Any, *arguments: Any, **named: Any) -> Any:
        done = exchange(self, session, asker, settled, *arguments, **named)
        held.append(taken(self))
        if settled and not done.numbers and fails["exchange"]:
            fails["exchange"] -= 1
            raise lost
        return done

    def failing(self: Book, *arguments: Any) -> Any:
        if fails["reconcile"]:
            fails["reconcile"] -= 1
            raise lost
        return reconcile(self, *arguments)

    monkeypatch.setattr(Book, "exchange", unheard)
    monkeypatch.setattr(Book, "reconcile", failing)
    cap = 12 * PRICE.most(200, 88)
    capped = dataclasses.replace(ASKER, study_cap=cap)
    with FaultServer(latency=0.02) as server:
        asked = ask(book, capped, questions(300), provider(server.url), limits=Limits(in_flight=8), price=PRICE)
        bills = len(server.bills())
    assert fails == {"exchange": 0, "reconcile": 0}
    assert asked.stopped is not None
    assert asked.stopped.cause == "budget"
    assert asked.counts["ok"] == bills
    with book.reading() as connection:
        booked = connection.execute(sa.select(sa.func.sum(attempts.c.spent))).scalar_one()
    assert held[-1] == (booked, 0)
    assert min(reserved for _, reserved in held) >= 0
    assert max(spent + reserved for spent, reserved in held) <= cap
    counts("T23", f"3 commits unheard, 2 failing looks at them: {bills} bills booked once, spent under the cap")


@pytest.mark.fault("T5")
def test_who_has_lost_the_lock_sends_nothing_more(book: Book, counts: Counts) -> None:
    """Another process has taken this one for dead, as after a restart of the database: it ends at its next commit."""
    first: list[Any] = []
    with FaultServer(latency=0.1) as server:
        remote = provider(server.url)
        limits = Limits(in_flight=8)
        asking = threading.Thread(
            target=lambda: first.append(ask(book, ASKER, questions(200), remote, limits=limits, price=PRICE))
        )
        asking.start()
        while len(server.bills()) < 24:
            pass
        with book.writing() as connection:
            connection.execute(sa.update(sessions).values(ended=True))
        asking.join()
        sent = len(server.bills())
        second = ask(book, ASKER, questions(200), remote, limits=Limits(in_flight=64), price=PRICE)
        bills = len(server.bills())
    assert first[0].stopped.cause == "fenced"
    assert sent < 200
    assert second.counts == {"ok": 200}
    assert bills <= 200 + limits.in_flight
    counts("T5", f"a lost lock: {sent} sent before it was noticed, {bills - 200} keys sent twice")


@pytest.mark.fault("S19", runs="1 restart; slow: 10")
@pytest.mark.parametrize("restarts", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_database_that_restarts_under_a_run_costs_it_a_moment(restarts: int, counts: Counts) -> None:
    number = 100 * (1 + restarts)
    asked: list[Any] = []
    with (
        tempfile.TemporaryDirectory(prefix="nift-postgres-") as folder,
        postgres(Path(folder)) as database,
        FaultServer(latency=0.05) as server,
    ):
        ledger, other = Book(database.url), Book(database.url)
        remote, limits = provider(server.url), Limits(in_flight=8)
        asking = threading.Thread(
            target=lambda: asked.append(ask(ledger, ASKER, questions(number), remote, limits=limits, price=PRICE))
        )
        asking.start()
        for restart in range(restarts):
            wait(lambda until=100 * restart + 20: len(server.bills()) >= until, every=0.02)
            database.restart()
            there = len(server.bills())
            wait(lambda there=there: len(server.bills()) > there, every=0.02)
            # What the server forgot has been taken anew before anything left.
            assert not other.locks.free("writer s/t")
            assert other.recover() == 0
        asking.join()
        found = books(database.url, server.bills())
        assert taken(ledger)[1] == 0
        with ledger.session("s/t"):
            pass
    assert [(each.counts, each.stopped) for each in asked] == [({"ok": number}, None)]
    assert len(found.bills) == number
    found.check(most_extra=0)
    counts("S19", f"{restarts} restarts of PostgreSQL under a run: {number} of {number} answered and paid once")


@pytest.mark.fault("S19")
def test_a_lock_goes_with_its_connection_and_comes_back_unless_somebody_has_it(database_url: str) -> None:
    ledger, other = Book(database_url), Book(database_url)
    cut = sa.text(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()"
    )
    lock = ledger.locks.hold("writer w")
    assert lock is not None
    assert lock.keep()
    with other.reading() as connection:
        connection.execute(cut)
    wait(lambda: other.locks.free("writer w"))
    assert lock.keep()
    assert not other.locks.free("writer w")
    with other.reading() as connection:
        connection.execute(cut)
    wait(lambda: other.locks.free("writer w"))
    theirs = other.locks.hold("writer w")
    assert theirs is not None
    assert not lock.keep()
    lock.release()
    assert theirs.keep()
    theirs.release()


def test_a_report_that_cannot_be_made_stops_nothing(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nift_assets.ledger.dispatch.REPORT_SECONDS", 0.0)

    def report(_: Any) -> None:
        raise RuntimeError("database is locked")

    faults = [{"fault": "hang", "at": [3], "first": 1}]
    with FaultServer(faults, latency=0.02) as server:
        limits = Limits(in_flight=4, seconds_per_request=0.5, backoff_seconds=0.02)
        asked = ask(book, ASKER, questions(40), provider(server.url), limits=limits, price=PRICE, report=report)
    assert asked.counts == {"ok": 40}


def test_a_server_that_turns_everybody_away_for_too_long_ends_the_run(book: Book) -> None:
    faults = [{"fault": "rate_limit", "retry_after": "0.1"}]
    with FaultServer(faults) as server:
        limits = Limits(in_flight=4, patience_seconds=0.5, backoff_seconds=0.05)
        asked = ask(book, ASKER, questions(200), provider(server.url), limits=limits, price=PRICE)
    assert asked.stopped is not None
    assert asked.stopped.cause == "rate_limit"
    assert asked.counts.get("ok", 0) == 0
    assert asked.seconds < 10


def test_what_is_in_the_book_is_read_without_a_key_or_a_price(book: Book) -> None:
    def refuse() -> Any:
        raise ValueError("no key")

    with scripted(lambda prompt: (200, {}, whole())) as (server, _):
        ask(book, ASKER, questions(5), lambda: server, limits=FAST, price=lambda: PRICE)
    assert ask(book, ASKER, questions(5), refuse, price=refuse).counts == {"ok": 5}
    with pytest.raises(ValueError, match="no key"):
        ask(book, ASKER, questions(6), refuse, price=refuse)


def test_a_price_is_booked_to_the_last_billionth() -> None:
    price = Price(input=0.075, output=0.3, max_output=1)
    assert price.cost(1, 0) == 75
    assert price.cost(1_000_000, 1_000_000) == 375_000_000


def test_zero_is_one_temperature() -> None:
    whole_number = Teacher(name="t", provider="openai", model="m", temperature=0)
    keys = {
        providers.request(row, "text").key
        for row in (whole_number, Teacher(name="t", provider="openai", model="m", temperature=0.0))
    }
    assert len(keys) == 1
