"""The ledger: every question asked once, every answer kept, every cent under its cap, whoever else is asking."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nift_assets import providers
from nift_assets.ledger import book, database, question_counts, rate_limiter, report, tables
from nift_assets.ledger.book import Asker, AttemptResult, Book, ExchangeResult, Reservation
from nift_assets.ledger.door import ask
from nift_assets.ledger.locks import FileLocks
from nift_assets.ledger.rate_limiter import MOST_WAIT, LimitObservations, RateLimiter
from nift_assets.ledger.report import spent_and_reserved
from nift_assets.ledger.tables import VERSION
from nift_assets.protocol import Message, Reading, Request
from nift_assets.protocol.server import InProcess, Quota
from nift_assets.providers import chat_completion, openai
from nift_assets.rows import LanguageModel, Limits
from tests.counting import Counts
from tests.ledger.asking import PRICE, Task, books, open_sessions, question, questions, same_text, wait
from tests.ledger.asking import provider as server_of
from tests.ledger.fault_server import Bill, FaultServer, expected_words

ASKER = Asker(study="s", who="t", writer="s/t")
ROW = LanguageModel(name="t", provider="openai", model="m", base_url="http://127.0.0.1:8000/v1", max_tokens=200)


@dataclass
class Counting(InProcess):
    """Answers with the question, keeps what reaches it and breaks down before answer `breaks_at`."""

    breaks_at: int | None = None
    asked: list[Request] = field(default_factory=list)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        for request in requests:
            if len(self.asked) == self.breaks_at:
                raise ConnectionError("the provider went away")
            self.asked.append(request)
            text = request.messages[-1].content
            yield request, chat_completion(model="m", text=text, finish_reason="stop", output_tokens=3)

    def texts(self) -> list[str]:
        return [request.messages[-1].content for request in self.asked]


@pytest.fixture
def ledger(sqlite_url: str) -> Book:
    return Book(sqlite_url)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


# -- asked once, kept for good


def test_a_finished_question_is_never_asked_again(ledger_url: str) -> None:
    ledger, provider = Book(ledger_url), Counting()
    texts = [str(i) for i in range(1_200)]
    assert [a.text for a in ask(ledger, ASKER, [question(t) for t in texts], provider).answers] == texts
    again = Counting()
    asked = ask(ledger, ASKER, [question(t) for t in [*reversed(texts), "one more"]], again)
    assert again.texts() == ["one more"]
    assert [a.text for a in asked.answers] == [*reversed(texts), "one more"]
    assert asked.written == 3


def test_a_question_asked_twice_at_once_is_sent_once(ledger: Book) -> None:
    provider = Counting()
    answers = ask(ledger, ASKER, [question("same"), question("same")], provider).answers
    assert len(provider.asked) == 1
    assert answers[0] == answers[1]


def test_who_reads_sees_one_state_whatever_is_stored_meanwhile(ledger_url: str) -> None:
    """An answer that arrives between two looks is in neither: it would seem answered, and its answer lost."""
    read, write = Book(ledger_url), Book(ledger_url)
    attempts_seen = sa.select(sa.func.count()).select_from(tables.attempts)
    answers_seen = sa.select(sa.func.count()).select_from(tables.answers)
    with read.reading() as connection:
        assert connection.execute(answers_seen).scalar_one() == 0
        ask(write, ASKER, questions(3), Counting(), limits=Limits(), price=PRICE)
        assert connection.execute(answers_seen).scalar_one() == connection.execute(attempts_seen).scalar_one() == 0
    with read.reading() as connection:
        assert connection.execute(answers_seen).scalar_one() == 3


def test_what_had_arrived_before_a_breakdown_is_kept(ledger: Book) -> None:
    asked = [question(str(i)) for i in range(10)]
    with pytest.raises(ConnectionError):
        ask(ledger, ASKER, asked, Counting(breaks_at=6))
    rest = Counting()
    assert ask(ledger, ASKER, asked, rest).counts == {"ok": 10}
    assert rest.texts() == ["6", "7", "8", "9"]


def test_the_intent_is_written_before_the_question_leaves(sqlite_url: str) -> None:
    class Looking(Counting):
        def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
            with sa.create_engine(sqlite_url).connect() as connection:
                assert connection.scalar(sa.text("select count(*) from requests")) == 3
                assert connection.scalar(sa.text("select count(*) from answers")) == 0
            yield from super().answer(requests)

    looking = Looking()
    ask(Book(sqlite_url), ASKER, questions(3), looking)
    assert len(looking.asked) == 3


def test_who_wanted_what_is_kept_for_every_study(sqlite_url: str) -> None:
    ledger = Book(sqlite_url)
    ask(ledger, ASKER, questions(3), Counting())
    ask(ledger, Asker(study="other", who="judge", writer="other/judge"), questions(2, first=1), Counting())
    with sa.create_engine(sqlite_url).connect() as connection:
        query = sa.text("select study, who, count(*) from wanted group by study, who order by study")
        assert connection.execute(query).all() == [("other", "judge", 2), ("s", "t", 3)]


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "q"},
        {"model": "n"},
        {"messages": (Message(role="system", content="s"), Message(role="user", content="text"))},
        {"messages": (Message(role="user", content="text "),)},
        {"messages": (Message(role="assistant", content="text"),)},
        {"parameters": {"temperature": 1}},
        {"parameters": {"temperature": 0.0, "max_tokens": 5}},
        {"endpoint": "local"},
        {"api_version": "2023-06-01"},
        {"draw": 1},
    ],
)
def test_every_field_that_shapes_the_answer_is_in_the_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(question("text"), **change).key != question("text").key


def test_the_order_of_parameters_is_not_in_the_key() -> None:
    one = question("text", parameters={"a": 1, "b": 2})
    assert one.key == question("text", parameters={"b": 2, "a": 1}).key


@pytest.mark.parametrize(
    ("version", "says"), [(VERSION + 1, f"has version {VERSION + 1}, this program needs"), (1, "an earlier version")]
)
def test_a_ledger_of_another_version_is_refused(version: int, says: str, ledger_url: str) -> None:
    Book(ledger_url)
    engine = sa.create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"update schema set version = {version}"))
    for _ in range(2):  # it is left as it is
        with pytest.raises(ValueError, match=says):
            Book(ledger_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("select version from schema")).scalars().all() == [version]


def test_a_ledger_of_the_version_before_there_were_versions_is_refused(sqlite_url: str) -> None:
    with sa.create_engine(sqlite_url).begin() as connection:
        connection.execute(sa.text("create table requests (key text primary key)"))
    with pytest.raises(ValueError, match="was made by an earlier version"):
        Book(sqlite_url)


# -- what makes a question another one, seen by the server


def asked_by(row: LanguageModel, texts: Sequence[str], ledger: Book, server: FaultServer, **more: Any) -> int:
    """How many requests reach the server when a row asks these texts."""
    before = len(server.bills())
    connected = providers.load(row.provider).connect(dataclasses.replace(row, base_url=f"{server.url}/v1"), None)
    requests = [providers.request(row, text, **more) for text in texts]
    asked = ask(ledger, ASKER, requests, connected, limits=Limits(in_flight=8))
    assert not asked.counts.keys() - {"ok", "truncated"}, asked
    sent = len(server.bills()) - before
    assert sent == asked.sent
    return sent


TEXTS = [f"text {number}" for number in range(20)]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-test-0123456789abcdef")


LOCAL = dataclasses.replace(ROW, key_variable="TEST_KEY")


@pytest.mark.fault("S9")
@pytest.mark.usefixtures("keys")
def test_only_what_is_new_is_sent(ledger: Book, server: FaultServer) -> None:
    assert asked_by(LOCAL, TEXTS, ledger, server) == 20
    assert asked_by(LOCAL, TEXTS, ledger, server) == 0
    assert asked_by(LOCAL, [*TEXTS, "one more document"], ledger, server) == 1
    assert asked_by(LOCAL, list(reversed(TEXTS)), ledger, server) == 0
    assert asked_by(LOCAL, [*TEXTS[:5], *TEXTS], ledger, server) == 0


@pytest.mark.fault("S9", runs="12 fields")
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"system_prompt": "Go on."}, {}),
        ({"model": "m2"}, {}),
        ({"temperature": 0.5}, {}),
        ({"temperature": None}, {}),
        ({"supports_temperature": False}, {}),
        ({"max_tokens": 199}, {}),
        ({"provider": "anthropic"}, {}),
        ({"api_version": "2"}, {}),
        ({"base_url": "https://models.example.org/v1"}, {}),
        ({"base_url": None}, {}),
        ({}, {"draw": 1}),
        ({}, {"system": "Go on, please."}),
    ],
)
def test_a_change_of_what_shapes_the_answer_sends_everything(
    change: dict[str, Any], more: dict[str, Any], ledger: Book, server: FaultServer
) -> None:
    assert asked_by(LOCAL, TEXTS, ledger, server) == 20
    assert asked_by(dataclasses.replace(LOCAL, **change), TEXTS, ledger, server, **more) == 20
    assert asked_by(LOCAL, TEXTS, ledger, server) == 0


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("version", ["2023-01-01", "2024-01-01"])
def test_another_version_of_the_protocol_is_another_question(version: str, ledger: Book, server: FaultServer) -> None:
    claude = dataclasses.replace(LOCAL, provider="anthropic")
    assert asked_by(claude, TEXTS, ledger, server) == 20
    assert asked_by(dataclasses.replace(claude, api_version=version), TEXTS, ledger, server) == 20


@pytest.mark.fault("S9")
@pytest.mark.usefixtures("keys")
def test_a_change_of_one_text_sends_that_text(ledger: Book, server: FaultServer) -> None:
    assert asked_by(LOCAL, TEXTS, ledger, server) == 20
    assert asked_by(LOCAL, [f"{TEXTS[0]} ", *TEXTS[1:]], ledger, server) == 1


@pytest.mark.fault("S9", runs="6 fields")
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    "change",
    [
        {"name": "another-name"},
        {"base_url": "http://localhost:9999/v1"},
        {"base_url": "http://127.0.0.2/v1"},
        {"limits": Limits(in_flight=2)},
        {"price": PRICE},
        {"budget_usd": 5.0},
    ],
)
def test_a_change_of_what_shapes_no_answer_sends_nothing(
    change: dict[str, Any], ledger: Book, server: FaultServer
) -> None:
    assert asked_by(LOCAL, TEXTS, ledger, server) == 20
    assert asked_by(dataclasses.replace(LOCAL, **change), TEXTS, ledger, server) == 0


@pytest.mark.usefixtures("keys")
def test_another_rule_to_read_answers_sends_nothing_and_is_used(
    ledger: Book, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_by(LOCAL, TEXTS, ledger, server) == 20
    before = openai.read

    def shouting(body: dict[str, Any]) -> Reading:
        reading = before(body)
        return dataclasses.replace(reading, text=reading.text.upper(), status="truncated")

    monkeypatch.setattr(openai, "read", shouting)
    requests = [providers.request(LOCAL, text) for text in TEXTS]
    asked = ask(ledger, ASKER, requests, Counting())
    assert (asked.sent, asked.counts) == (0, {"truncated": 20})
    assert asked.answers[0].text == " ".join(expected_words(TEXTS[0], "m")).upper()


@pytest.mark.usefixtures("keys")
def test_a_server_on_another_port_is_the_same_server(ledger: Book, server: FaultServer) -> None:
    assert asked_by(LOCAL, TEXTS, ledger, server) == 20
    with FaultServer() as other:
        assert other.port != server.port
        assert asked_by(dataclasses.replace(LOCAL, base_url=f"{other.url}/v1"), TEXTS, ledger, other) == 0


# -- T20: caps


def worth(model: str, first: int, count: int) -> int:
    """What the server's answers to so many questions cost, in billionths of a dollar."""
    texts = [f"text {number}" for number in range(first, first + count)]
    return sum(PRICE.cost(len(text) // 4 + 1, len(expected_words(text, model))) for text in texts)


def cost(bills: Sequence[Bill]) -> int:
    """What the server has billed for."""
    return sum(
        PRICE.cost(len(bill.prompt or "") // 4 + 1, len(expected_words(bill.prompt or "", str(bill.model))))
        for bill in bills
        if bill.billed
    )


@pytest.mark.fault("T20", runs="500 rows' worth, 16 in flight")
def test_spending_ends_at_the_cap_and_goes_on_with_the_rest_under_a_higher_one(ledger_url: str, counts: Counts) -> None:
    cap = worth("m", 0, 500)
    with FaultServer(latency=0.01) as server:
        task = Task(ledger=ledger_url, server=server.url, count=700, study_cap=cap)
        asked = task.ask()
        bills = server.bills()
        assert asked.stopped is not None
        assert asked.stopped.cause == "budget"
        assert str(asked.stopped).startswith("budget reached: the cap of the study s is $0.0")
        assert asked.spent == cost(bills) <= cap
        # What is left would not pay for one more request if it came to the most it can.
        assert cap - asked.spent < PRICE.cost(200, PRICE.max_output)
        assert 480 <= len(bills) <= 516
        assert spent_and_reserved(Book(ledger_url), "s")[""] == asked.spent
        assert asked.counts == {"ok": len(bills), "pending": 700 - len(bills)}
        again = task.ask()
        assert (again.sent, again.stopped and again.stopped.cause) == (0, "budget")
        more = dataclasses.replace(task, study_cap=10 * cap).ask()
        assert (more.sent, more.stopped) == (700 - len(bills), None)
        found = books(ledger_url, server.bills())
    found.check(most_extra=0)
    assert len(found.bills) == same_text(ledger_url) == 700
    name = "SQLite" if ledger_url.startswith("sqlite") else "PostgreSQL"
    counts(
        "T20",
        f"{name}: a cap of 500 rows' worth, 16 in flight: {len(bills)} bills, {asked.spent / cap:.1%} of the cap "
        f"spent, then the other {more.sent}",
    )


def test_the_cap_of_a_teacher_is_its_own(ledger: Book, server: FaultServer) -> None:
    asker = Asker(study="s", who="t", writer="w", study_cap=worth("m", 0, 1000), who_cap=worth("m", 0, 20))
    limits = Limits(in_flight=4)
    asked = ask(ledger, asker, questions(50), server_of(server.url), limits=limits, price=PRICE)
    assert asked.stopped is not None
    assert str(asked.stopped).startswith("budget reached: the cap of s/t is")
    other = dataclasses.replace(asker, who="u", writer="v")
    asked = ask(ledger, other, questions(10, first=50), server_of(server.url), limits=limits, price=PRICE)
    assert (asked.stopped, asked.sent) == (None, 10)


@pytest.mark.fault("T20")
def test_two_processes_under_one_cap_never_pass_it_together(ledger_url: str, counts: Counts) -> None:
    cap = worth("m1", 0, 150) + worth("m2", 0, 150)
    most = 0
    with FaultServer(latency=0.01) as server:
        tasks = [
            Task(
                ledger=ledger_url,
                server=server.url,
                count=300,
                model=f"m{n}",
                who=f"t{n}",
                writer=f"w{n}",
                study_cap=cap,
            )
            for n in (1, 2)
        ]
        running = [task.start() for task in tasks]
        account = Book(ledger_url)
        while any(process.running() for process in running):
            most = max(most, spent_and_reserved(account, "s").get("", 0))
            time.sleep(0.005)
        told = [process.result() for process in running]
        bills = server.bills()
        spent = spent_and_reserved(account, "s")[""]
        found = books(ledger_url, bills)
    assert all("budget reached" in t["stopped"] for t in told)
    assert all(t["sent"] for t in told)
    assert spent == cost(bills) == sum(t["spent"] for t in told) <= cap
    assert cap * 0.9 < most <= cap  # with what was reserved
    found.check(most_extra=0)
    name = "SQLite" if ledger_url.startswith("sqlite") else "PostgreSQL"
    shares = " + ".join(str(t["sent"]) for t in told)
    counts("T20", f"{name}: two processes under one cap: {shares} bills, {spent / cap:.1%} spent, never above")


@pytest.mark.fault("T20")
def test_what_became_unknown_stays_reserved(ledger_url: str) -> None:
    with FaultServer(latency=0.3) as server:
        task = Task(ledger=ledger_url, server=server.url, count=8)
        process = task.start()
        wait(lambda: len(server.bills()) == 8, every=0.01)
        process.kill()
        account = Book(ledger_url)
        reserved = spent_and_reserved(account, "s")[""]
        assert reserved > cost(server.bills())
        server.set(latency=0.0)
        assert task.ask_when_free().counts == {"ok": 8}
        assert spent_and_reserved(account, "s")[""] == reserved + cost(server.bills()) // 2
        books(ledger_url, server.bills()).check(most_extra=8)


def test_a_response_that_is_no_answer_may_have_been_billed_and_stays_reserved(ledger: Book) -> None:
    with FaultServer([{"fault": "half_json", "share": 1.0, "first": 1}]) as server:
        limits = Limits(in_flight=4, backoff_seconds=0.01)
        asked = ask(ledger, ASKER, questions(10), server_of(server.url), limits=limits, price=PRICE)
        found = books(ledger.url, server.bills())
    assert (asked.counts, len(found.bills)) == ({"ok": 10}, 20)
    found.check()
    reserved = sum(found.attempts[attempt]["reserved"] for attempt in found.unknown)
    assert reserved > asked.spent
    assert spent_and_reserved(ledger, "s") == dict.fromkeys(("", "t"), asked.spent + reserved)


@pytest.mark.fault("T23")
def test_what_is_settled_again_is_booked_once_and_in_no_others_place(ledger: Book) -> None:
    """As after a commit that went through unheard, and from a session that was taken for dead."""
    first, second = questions(2)
    observed = LimitObservations()
    with ledger.session("other") as other, ledger.session("s/t") as session:
        ledger.open_accounts(ASKER)
        ledger.intend(session, ASKER, [first, second])
        wanted = [Reservation(key=question.key, amount=10, tokens=1) for question in (first, second)]
        ledger.exchange(session, ASKER, [], wanted, first_number=1, limiter="l", observed=observed)
        answered = AttemptResult(
            number=1, key=first.key, state="answered", reserved=10, spent=4, http_status=200, body=b"{}"
        )
        lost = AttemptResult(number=2, key=second.key, state="unknown", reserved=10, cause="timeout", outcome="unknown")
        strange = dataclasses.replace(answered, number=2, body=None)
        for settled in ([answered], [answered, strange], [answered, answered, lost], [lost, answered]):
            ledger.exchange(session, ASKER, settled, [], first_number=3, limiter="l", observed=observed)
        assert spent_and_reserved(ledger, "s") == {"": 14, "t": 14}
        with ledger.writing() as connection:
            connection.execute(sa.update(tables.requests).values(claimed_by=other, outcome=None))
            connection.execute(sa.update(tables.attempts).values(state="unknown", cause="interrupted"))
        ledger.exchange(session, ASKER, [lost], [], first_number=3, limiter="l", observed=observed)
        with ledger.reading() as connection:
            claims = connection.execute(sa.select(tables.requests.c.claimed_by, tables.requests.c.outcome)).all()
    assert claims == [(other, None)] * 2


def test_what_somebody_has_answered_meanwhile_does_not_leave(ledger: Book) -> None:
    first, second = questions(2)
    with ledger.session("other") as other, ledger.session("s/t") as session:
        ledger.open_accounts(ASKER)
        ledger.intend(session, ASKER, [first, second])
        ledger.keep(other, [(first.key, 200, b"{}")])
        wanted = [Reservation(key=question.key, amount=10, tokens=1) for question in (first, second)]
        exchanged = ledger.exchange(
            session, ASKER, [], wanted, first_number=1, limiter="l", observed=LimitObservations()
        )
    assert (list(exchanged.numbers), exchanged.answered) == ([1], {first.key})
    assert spent_and_reserved(ledger, "s") == {"": 10, "t": 10}


def test_a_session_that_others_have_ended_claims_nothing(ledger: Book) -> None:
    """Nobody would ever free it, and whoever wants the same would wait for ever."""
    with ledger.session("s/t") as session:
        with ledger.writing() as connection:
            connection.execute(sa.update(tables.sessions).values(ended=True))
        with pytest.raises(ValueError, match="another process has taken over from s/t"):
            ledger.intend(session, ASKER, questions(2))
    with ledger.session("s/t") as session:
        assert len(ledger.intend(session, ASKER, questions(2)).ours) == 2


# -- who is alive


def test_only_a_session_that_is_gone_is_settled(ledger_url: str) -> None:
    with FaultServer(latency=5) as server:
        task = Task(ledger=ledger_url, server=server.url, count=4)
        gone, alive = task.start(), dataclasses.replace(task, first=4, writer="other").start()
        wait(lambda: len(server.bills()) == 8, every=0.01)
        ledger = Book(ledger_url)
        assert ledger.recover() == 0
        assert len(open_sessions(ledger_url)) == 2
        gone.kill()
        unknown = 0

        def settled() -> bool:
            nonlocal unknown
            unknown += ledger.recover()
            return unknown > 0

        wait(settled, 10, every=0.05)
        assert unknown == 4
        assert [writer for _, writer in open_sessions(ledger_url)] == ["other"]
        assert ledger.recover() == 0
        alive.kill()


def test_a_session_can_be_seen_by_nobody_before_it_is_locked(ledger_url: str) -> None:
    """Else a recovery at that moment takes it for a dead one, and what it leaves later is never settled."""
    ledger, other = Book(ledger_url), Book(ledger_url)
    ended = threading.Event()
    failures: list[BaseException] = []

    def recover() -> None:
        try:
            while not ended.is_set():
                other.recover()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=recover)
    thread.start()
    try:
        for _ in range(40):
            with ledger.session("w") as number:
                assert number in [found for found, _ in open_sessions(ledger_url)]
    finally:
        ended.set()
        thread.join()
    assert not failures


def test_a_ledger_that_others_hold_is_waited_for_as_long_as_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    with closing(holder):
        holder.execute("begin")
        holder.execute("select * from sqlite_master").fetchall()
        monkeypatch.setattr(database, "SECONDS_TO_WAIT", 1)
        began = time.monotonic()
        with pytest.raises(sa.exc.OperationalError, match="database is locked"):
            Book(f"sqlite:///{tmp_path}/ledger.sqlite")
        assert 1 <= time.monotonic() - began < 4
        holder.execute("commit")
        Book(f"sqlite:///{tmp_path}/ledger.sqlite")


def test_the_writers_lock_is_free_as_soon_as_its_session_is_over(ledger_url: str) -> None:
    ledger = Book(ledger_url)
    with ledger.session("w"):
        busy = pytest.raises(ValueError, match="another run is asking as w right now; wait until it ends")
        with busy, ledger.session("w"):
            pass
        with ledger.session("v"):
            pass
    with ledger.session("w"):
        pass


def test_a_lock_is_free_although_a_process_started_meanwhile_has_a_copy_of_its_file(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    lock = locks.hold("writer w")
    assert lock is not None
    (path,) = tmp_path.iterdir()
    copies = [
        int(opened)
        for opened in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{opened}") and path.samefile(f"/proc/self/fd/{opened}")
    ]
    assert len(copies) == 1
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=copies) as other:
        assert not locks.free("writer w")
        lock.release()
        assert locks.free("writer w")
        other.communicate(b"\n")


# -- T21: clocks that jump

HOUR = 3600.0
JUMPS = {"an hour on": HOUR, "an hour back": -HOUR, "a winter night": -HOUR / 2, "2038": 12 * 365 * 24 * HOUR}


@pytest.mark.fault("T21")
@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumps_changes_no_order_and_no_wait(
    jump: str, ledger: Book, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    """Every third look at any clock is after the jump, every other before it."""
    seconds = cycle([0.0, 0.0, JUMPS[jump]])
    day, clock, exchange = book.datetime, database.clock, Book.exchange
    exchanges: list[ExchangeResult] = []

    class Jumping(day):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return day.fromtimestamp(time.time() + next(seconds), zone)

    def kept(self: Book, *arguments: Any, **named: Any) -> ExchangeResult:
        exchanges.append(exchange(self, *arguments, **named))
        return exchanges[-1]

    monkeypatch.setattr(book, "datetime", Jumping)
    monkeypatch.setattr(database, "clock", lambda connection: clock(connection) + next(seconds))
    monkeypatch.setattr(Book, "exchange", kept)
    limits = Limits(in_flight=16, requests_per_minute=30_000, backoff_seconds=0.01)
    with FaultServer([{"fault": "server_error", "share": 0.2, "first": 1}], latency=0.002) as server:
        began = time.monotonic()
        asked = ask(ledger, ASKER, questions(200), server_of(server.url), limits=limits, price=PRICE)
        took = time.monotonic() - began
        found = books(ledger.url, server.bills())
    assert asked.counts == {"ok": 200}
    found.check(most_extra=0)
    assert all(0 <= exchanged.wait <= MOST_WAIT for exchanged in exchanges)
    assert took < 20
    # Of the attempts of one question the last in order is the answered one, whatever time they say.
    last = {found.attempts[attempt]["key"]: attempt for attempt in sorted(found.attempts)}
    assert set(last.values()) == found.answered
    sent = [found.bills[attempt].arrival for attempt in sorted(found.bills)]
    assert sum(abs(place - arrival) for place, arrival in enumerate(sent)) / len(sent) < 16
    counts("T21", f"{jump}: 200 keys, {len(found.bills)} sent, 0 waits below zero or above a minute, {took:.1f} s")


# Without shrinking, which takes minutes where floating point numbers decide.
PROPERTY = settings(max_examples=200, phases=(Phase.explicit, Phase.reuse, Phase.generate))
AMOUNTS = st.none() | st.floats(-1e4, 1e6)
RATES = st.none() | st.floats(1, 1e6)
TIMES = st.floats(-1e9, 4e9)
LIMITERS = st.builds(
    RateLimiter,
    requests_per_minute=RATES,
    tokens_per_minute=RATES,
    requests_left=AMOUNTS,
    tokens_left=AMOUNTS,
    measured_at=TIMES,
    learned=RATES,
    learned_at=st.none() | TIMES,
    gate_until=st.none() | TIMES,
)
SIZES = st.lists(st.integers(1, 100_000), max_size=40)


@pytest.mark.fault("T21")
@PROPERTY
@given(LIMITERS, SIZES, TIMES)
def test_no_clock_makes_a_wait_below_zero_or_above_a_minute(limiter: RateLimiter, sizes: list[int], now: float) -> None:
    found = rate_limiter.take(limiter, sizes, now)
    assert 0 <= found.wait <= MOST_WAIT
    assert 0 <= found.admitted <= len(sizes)
    assert found.limiter.measured_at == now
    assert (found.wait == 0) <= (found.admitted == len(sizes))
    assert all(
        math.isfinite(left) for left in (found.limiter.requests_left, found.limiter.tokens_left) if left is not None
    )


@PROPERTY
@given(LIMITERS, TIMES)
def test_a_clock_that_went_back_fills_no_bucket(limiter: RateLimiter, back: float) -> None:
    before = rate_limiter.refill(limiter, limiter.measured_at)
    after = rate_limiter.refill(before, before.measured_at - abs(back))
    for left, was in ((after.requests_left, before.requests_left), (after.tokens_left, before.tokens_left)):
        assert left is None or was is None or left <= was


@PROPERTY
@given(LIMITERS, TIMES)
def test_no_bucket_is_ever_fuller_than_full(limiter: RateLimiter, now: float) -> None:
    found = rate_limiter.refill(limiter, now)
    for left, rate in ((found.requests_left, found.rate()), (found.tokens_left, found.tokens_per_minute)):
        assert rate is None or left is None or left <= rate_limiter.capacity(rate)


@pytest.mark.fault("T21")
@PROPERTY
@given(LIMITERS, st.lists(st.integers(1, 5_000), min_size=1, max_size=5), TIMES, st.floats(-2e9, 2e9))
def test_nobody_waits_for_ever_whatever_the_clock_does(
    limiter: RateLimiter, sizes: list[int], now: float, jump: float
) -> None:
    """However the clock jumps once, who then waits as long as told gets through, in time for the debt there was."""
    limiter = dataclasses.replace(
        limiter,
        requests_left=None if limiter.requests_left is None else max(limiter.requests_left, -10.0),
        tokens_left=None if limiter.tokens_left is None else max(limiter.tokens_left, -10.0),
    )
    slowest = min(rate for rate in (limiter.rate(), limiter.tokens_per_minute, 1e6) if rate is not None)
    admission = rate_limiter.take(rate_limiter.refill(limiter, now), sizes, now + jump)
    now += jump
    for _ in range(int(5_000 / slowest) + 40):
        if admission.admitted:
            return
        now += max(admission.wait, 0.001)  # nobody sleeps for less
        admission = rate_limiter.take(admission.limiter, sizes, now)
    raise AssertionError(admission)


@PROPERTY
@given(st.floats(60, 60_000), st.lists(st.floats(0.0, 2.0), min_size=10, max_size=60))
def test_no_minute_sees_more_than_its_limit(per_minute: float, gaps: list[float]) -> None:
    now, sent, limiter = 1e6, 0, RateLimiter(measured_at=1e6)
    for gap in gaps:
        now += gap
        admission = rate_limiter.admit(limiter, LimitObservations(requests_per_minute=per_minute), [1] * 2_000, now)
        limiter, sent = admission.limiter, sent + admission.admitted
    minutes = math.ceil((now - 1e6) / 60) or 1
    assert sent <= per_minute * minutes + 1


def test_what_the_headers_say_is_left_is_the_most_there_is() -> None:
    limiter = RateLimiter(requests_per_minute=6_000, requests_left=10.0, measured_at=100.0)
    admission = rate_limiter.admit(
        limiter, LimitObservations(quotas=[Quota(requests_per_minute=6_000, requests_left=0)]), [1] * 5, 100.0
    )
    assert admission.admitted == 0
    assert admission.wait > 0
    gate = rate_limiter.admit(limiter, LimitObservations(gate_seconds=2.0), [1] * 5, 100.0)
    assert (gate.admitted, gate.wait) == (0, 2.0)
    assert rate_limiter.admit(gate.limiter, LimitObservations(), [1] * 5, 102.5).admitted == 5


# -- what it costs beside many


@contextmanager
def statements(ledger: Book) -> Iterator[list[tuple[str, Any]]]:
    """The statements that a ledger executes in the block, each with its values."""
    executed: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, text: str, values: Any, context: Any, many: bool) -> None:
        if not text.startswith("pragma"):
            executed.append((text, values[0] if many else values))

    sa.event.listen(ledger._engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        sa.event.remove(ledger._engine, "before_cursor_execute", note)


def plans(ledger: Book, executed: Sequence[tuple[str, Any]]) -> dict[str, list[str]]:
    """How SQLite goes about each statement."""
    found = {}
    with ledger.reading() as connection:
        for text, values in executed:
            if text.split()[0].lower() in ("select", "insert", "update", "delete"):
                steps = connection.exec_driver_sql(f"explain query plan {text}", values).all()
                found[text] = [step[3] for step in steps]
    return found


# Read from one end to the other: a table that has a row for each question, or for each request that was sent.
WHOLE = re.compile(r"SCAN (requests|answers|attempts|wanted|r|a|w)\b")


def test_a_question_is_looked_up_by_its_key_however_many_there_are(sqlite_url: str) -> None:
    """Of nearly all questions `claimed_by` and `in_batch` are null: by those SQLite would read the whole ledger."""
    ledger = Book(sqlite_url)
    given = [
        [question(f"text {number}", parameters={"max_tokens": limit}) for number in range(30)] for limit in (100, 200)
    ]
    with FaultServer([{"fault": "server_error", "share": 0.2, "first": 1}]) as server, statements(ledger) as executed:
        with ledger.session(ASKER.writer) as session:  # who wanted them once and asked nobody
            ledger.open_accounts(ASKER)
            ledger.intend(session, ASKER, given[0])
        for asked in (*given, given[1]):  # what ended under the smaller limit is taken over, then all is there
            ask(ledger, ASKER, asked, server_of(server.url), limits=Limits(backoff_seconds=0.01), price=PRICE)
        report.report(ledger)
        report.answered(ledger, "s")
        report.ask_unknown_again(ledger, study="s", who="t")
    found = plans(ledger, executed)
    looked_up = [text for text in found if 'requests."key" IN' in text]
    assert {text.split()[0] for text in looked_up} == {"SELECT", "UPDATE", "INSERT"}
    for text in looked_up:
        assert any("requests_1 (key=?)" in step for step in found[text]), (text, found[text])
    assert len(found) > 25
    for text, steps in found.items():
        assert not [step for step in steps if WHOLE.search(step) and "INDEX attempts_" not in step], (text, steps)


def test_ten_thousand_questions_are_taken_in_by_few_statements(ledger_url: str) -> None:
    """A statement costs a way to the database and a commit one to the disk, whatever they write."""
    ledger = Book(ledger_url)
    asked = [question(f"text {number}", parameters={"max_tokens": 100}) for number in range(10_000)]
    commits = 0

    def count(_: Any) -> None:
        nonlocal commits
        commits += 1

    with ledger.session("s/t") as session:
        ledger.open_accounts(ASKER)
        sa.event.listen(ledger._engine, "commit", count)
        with statements(ledger) as executed:
            assert len(ledger.intend(session, ASKER, asked).ours) == 10_000
        assert len(executed) <= 2 * 14
        assert commits <= 2
        commits = 0
        ledger.keep(session, [(question.key, 200, b"{}") for question in asked])
        commits = 0
        with statements(ledger) as executed:
            assert ledger.intend(session, ASKER, asked).ours == []
        assert commits == 0, "who finds everything there writes nothing"
        assert len(executed) <= 2 * 4


def test_a_report_reads_no_question_and_no_answer(ledger_url: str) -> None:
    ledger = Book(ledger_url)
    ask(ledger, ASKER, questions(300), Counting(), limits=Limits(), price=PRICE)
    with statements(ledger) as executed:
        (account,) = report.report(ledger).accounts
    assert account.states == {"ok": 300}
    assert len(executed) <= 5
    for text, _ in executed:
        assert "body" not in text
        assert not re.search(r"\b(FROM|JOIN) (requests|wanted)\b", text)


def test_what_is_counted_is_what_is_there_whoever_asks_at_once(ledger_url: str) -> None:
    """Each wants what the others are answering just then: one who counts before an answer counts it all the same."""
    asked = questions(60)
    failures: list[BaseException] = []

    def work(place: int) -> None:
        try:
            ledger = Book(ledger_url)
            asker = Asker(study=f"s{place % 2}", who=f"t{place}", writer=f"w{place}")
            with ledger.session(asker.writer) as session:
                ledger.open_accounts(asker)
                for start in range(0, len(asked), 6):
                    portion = asked[start : start + 6]
                    claims = ledger.intend(session, asker, [*portion, asked[-1 - start]])
                    ledger.keep(session, [(key, 200, b"{}") for key in claims.ours[::2]])
                    if given_up := claims.ours[1::2]:
                        ledger.give_up(given_up, "exhausted", "no more")
                    ledger.keep(session, [(question.key, 200, b"{}") for question in portion[:2]])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    for _ in range(2):  # as the connections have counted, and when that is gathered
        ledger = Book(ledger_url)
        with ledger.reading() as connection:
            assert question_counts.counted(connection) == question_counts.recounted(connection)
            assert sum(question_counts.counted(connection).values()) == 6 * 60
