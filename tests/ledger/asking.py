"""Asking through the door in tests: questions, a process of its own that asks them, and the ledger laid beside the
server's log.

As a program it asks what the JSON of a `Task` says and prints what that came to:

    python -m tests.ledger.asking '{"ledger": "sqlite:///l.sqlite", "server": "http://127.0.0.1:8000", "count": 60}'
"""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any

import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import AskResult, ask, bring_in, stored
from nift_assets.ledger.tables import answers, attempts, requests, sessions
from nift_assets.protocol import Message, Request
from nift_assets.providers.openai import OpenAI
from nift_assets.rows import Limits, Price
from tests.ledger.fault_server import Bill, FaultServer, expected_text, sha256

PRICE = Price(input=0.5, output=1.5, max_output=88)
KEY = "sk-test-0123456789abcdef"
REFUSED = 3
Attempt = tuple[int, int]

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload([__name__, "aiohttp", "pytest"])
# How a child ended can be read once, and starting one reads it for all: of two threads one would find nothing.
ONE_AT_A_TIME = threading.Lock()


def questions(count: int, *, first: int = 0, model: str = "m", **changes: Any) -> list[Request]:
    """Questions that differ in their number only."""
    return [question(f"text {number}", model=model, **changes) for number in range(first, first + count)]


def question(text: str, **changes: Any) -> Request:
    given: dict[str, Any] = {"provider": "openai", "model": "m", "parameters": {"temperature": 0.0}, **changes}
    return Request(messages=(Message(role="user", content=text),), **given)


def provider(url: str, model: str = "m") -> OpenAI:
    """The fault server as OpenAI's, ready to be asked."""
    return OpenAI(name="openai", model=model, url=f"{url}/v1/chat/completions", key=KEY)


@dataclass(frozen=True)
class Cut:
    """Questions by portions of one size."""

    questions: Sequence[Request]
    size: int

    @property
    def total(self) -> int:
        return len(self.questions)

    def __len__(self) -> int:
        return math.ceil(self.total / self.size)

    def __getitem__(self, number: int, /) -> Sequence[Request]:
        return self.questions[number * self.size : (number + 1) * self.size]

    def __iter__(self) -> Iterator[Sequence[Request]]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process asks: the questions `first` to `first + count` of a model, in so many calls of the door, or in
    one by portions of so many, all or some `numbers`, which it shares with whoever asks as the same writer."""

    ledger: str
    server: str
    count: int
    first: int = 0
    calls: int = 1
    portion: int = 0
    numbers: tuple[int, ...] | None = None
    model: str = "m"
    study: str = "s"
    who: str = "t"
    writer: str = "s/t"
    study_cap: int | None = None
    who_cap: int | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)

    def asker(self) -> Asker:
        return Asker(study=self.study, who=self.who, writer=self.writer, study_cap=self.study_cap, who_cap=self.who_cap)

    def ask(self) -> AskResult:
        """Asks in this process; what the last call of the door came to."""
        book, size = Book(self.ledger), self.count // self.calls
        limits = Limits(**{"in_flight": 16, "backoff_seconds": 0.05, **self.limits})
        if self.portion:
            cut = Cut(questions(self.count, first=self.first, model=self.model), self.portion)
            asker, server = replace(self.asker(), shared=True), provider(self.server, self.model)
            outcome = bring_in(book, asker, cut, server, numbers=self.numbers, limits=limits, price=PRICE)
            theirs = cut if self.numbers is None else map(cut.__getitem__, self.numbers)
            return AskResult.of(outcome, stored(book, list(chain.from_iterable(theirs))))
        for start in range(self.first, self.first + self.count, size):
            asked = ask(
                book,
                self.asker(),
                questions(size, first=start, model=self.model),
                provider(self.server, self.model),
                limits=limits,
                price=PRICE,
            )
        return asked

    def ask_when_free(self, seconds: float = 20) -> AskResult:
        """Asks as soon as the writer's lock is free: a database server takes a moment to miss a dead client."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.ask()
            except ValueError as error:
                if "another run" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def start(self, crash: str | None = None) -> Child:
        """A process of its own that asks; `crash` is a point of the ledger and a visit at which it is killed."""
        return Child(self, crash)


class Child:
    """A process that asks, forked from one that has imported all it needs, which is faster than starting Python."""

    def __init__(self, task: Task, crash: str | None = None) -> None:
        self._told, theirs = CHILDREN.Pipe(duplex=False)
        self._process = CHILDREN.Process(target=_ask, args=(task, crash, theirs), daemon=True)
        with ONE_AT_A_TIME:
            self._process.start()
        theirs.close()

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def running(self) -> bool:
        with ONE_AT_A_TIME:
            return self._process.is_alive()

    def end(self, seconds: float = 60) -> int:
        """Waits for the end; the exit code, or the number of the signal that killed it below zero."""
        at_its_end = multiprocessing.connection.wait([self._process.sentinel], seconds)
        assert at_its_end, f"not at its end after {seconds} s"
        with ONE_AT_A_TIME:
            assert self._process.exitcode is not None
            return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL, and the end of the process; it must have been alive."""
        self.signal(signal.SIGKILL)
        assert self.end() == -signal.SIGKILL

    def result(self, seconds: float = 60) -> dict[str, Any]:
        """What it has told, when it has ended well."""
        code = self.end(seconds)
        told: dict[str, Any] = self._told.recv() if self._told.poll() else {}
        assert code == 0, f"ended with {code}: {told}"
        return told

    def refusal(self, seconds: float = 60) -> str | None:
        """Why it was not let in; None where it was."""
        assert self.end(seconds) in (0, REFUSED)
        why: str | None = self._told.recv().get("refused")
        return why


def wait(until: Callable[[], bool], seconds: float = 60, *, every: float = 0.005) -> None:
    """Waits until something is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(every)


class Arrivals:
    """How many requests have reached a server, counted from the end of its log."""

    def __init__(self, server: FaultServer) -> None:
        self._file = server.log.open("rb")
        self._seen = 0

    def count(self) -> int:
        self._seen += self._file.read().count(b'"kind":"arrived"')
        return self._seen


class Reader:
    """Whoever reads the ledger while it is written: all answers that were ever there to see, byte for byte."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self.seen: dict[str, bytes] = {}
        self._last = ""

    def look(self) -> None:
        query = sa.select(answers.c.key, answers.c.body, answers.c.answered_at).where(
            answers.c.answered_at >= self._last
        )
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table("answers"):
                return
            for key, body, at in connection.execute(query):
                self.seen.setdefault(key, bytes(body))
                self._last = max(self._last, at)

    def lost(self) -> list[str]:
        """The keys whose answer is not there any more, or is another."""
        with self._engine.connect() as connection:
            there = {key: bytes(body) for key, body in connection.execute(sa.select(answers.c.key, answers.c.body))}
        return [key for key, body in self.seen.items() if there.get(key) != body]


@dataclass(frozen=True)
class Books:
    """The ledger beside the server's log. An attempt is known to both by its session and number."""

    attempts: Mapping[Attempt, Mapping[str, Any]]
    answers: Mapping[str, Mapping[str, Any]]
    bills: Mapping[Attempt, Bill]
    sent_twice: Sequence[Attempt]

    @cached_property
    def answered(self) -> set[Attempt]:
        return {(row["session"], row["number"]) for row in self.answers.values()}

    @property
    def without_intent(self) -> set[Attempt]:
        """Requests that reached the server and of which the ledger knows nothing."""
        return self.bills.keys() - self.attempts.keys()

    @property
    def resent(self) -> set[Attempt]:
        """Requests that left although their answer was stored."""
        return {
            attempt
            for attempt in self.bills.keys() & self.attempts.keys()
            if (stored := self.answers.get(self.attempts[attempt]["key"]))
            and attempt > (stored["session"], stored["number"])
        }

    @property
    def altered(self) -> list[str]:
        """Keys whose stored body is not, byte for byte, what the server sent for that attempt."""
        return [
            key
            for key, row in self.answers.items()
            if sha256(row["body"]) != self.bills[row["session"], row["number"]].response_sha256
        ]

    @property
    def extra(self) -> set[Attempt]:
        """Paid requests without an answer of theirs in the ledger."""
        return {attempt for attempt, bill in self.bills.items() if bill.billed} - self.answered

    def in_state(self, state: str) -> set[Attempt]:
        return {attempt for attempt, row in self.attempts.items() if row["state"] == state}

    @property
    def unknown(self) -> set[Attempt]:
        """Unknown attempts that did reach the server."""
        return self.in_state("unknown") & self.bills.keys()

    @property
    def never_left(self) -> set[Attempt]:
        """Unknown attempts that the server never saw: killed between the commit and the wire."""
        return self.in_state("unknown") - self.bills.keys()

    def check(self, *, most_extra: int | None = None) -> None:
        """What holds after any interruption: nothing altered, nothing paid again, and every extra bill is known."""
        assert not self.without_intent
        assert not self.sent_twice
        assert not self.resent
        assert not self.altered
        assert not self.in_state("sent")
        assert self.extra == self.unknown
        if most_extra is not None:
            per_session = Counter(session for session, _ in self.extra)
            assert max(per_session.values(), default=0) <= most_extra, per_session


def books(ledger: str, bills: Iterable[Bill]) -> Books:
    """The ledger and the bills of one server as they are now."""
    engine = sa.create_engine(ledger)
    with engine.connect() as connection:
        tried = {(row["session"], row["number"]): row for row in connection.execute(sa.select(attempts)).mappings()}
        stored = {row["key"]: row for row in connection.execute(sa.select(answers)).mappings()}
    engine.dispose()
    sent: dict[Attempt, Bill] = {}
    twice = []
    for bill in bills:
        prefix, session, number = bill.headers["x-client-request-id"].split("-")
        assert prefix == "nift"
        attempt = (int(session), int(number))
        if attempt in sent:
            twice.append(attempt)
        sent[attempt] = bill
    return Books(tried, stored, sent, twice)


def same_text(ledger: str) -> int:
    """How many answers of the ledger are the text that the server gives to their question; the others fail here."""
    engine = sa.create_engine(ledger)
    query = sa.select(requests.c.body, answers.c.body).join(answers, answers.c.key == requests.c.key)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    engine.dispose()
    for asked, body in rows:
        said = json.loads(asked)
        expected = expected_text(said["messages"][-1][1], said["model"])
        assert json.loads(bytes(body))["choices"][0]["message"]["content"] == expected
    return len(rows)


def open_sessions(ledger: str) -> list[tuple[int, str]]:
    """The sessions of the ledger that have not ended, each with its writer."""
    engine = sa.create_engine(ledger)
    with engine.connect() as connection:
        found = connection.execute(sa.select(sessions.c.id, sessions.c.writer).where(~sessions.c.ended)).all()
    engine.dispose()
    return [(number, writer) for number, writer in found]


def _ask(task: Task, crash: str | None, told: Connection) -> None:
    """What a child does: it asks, tells what that came to, and ends with 3 if it is not let in."""
    # A process that a shell starts in the background ignores Ctrl-C, and what is ignored is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["NIFT_CRASH"] = crash or ""
    importlib.reload(crash_points)
    try:
        asked = task.ask()
    except ValueError as error:
        told.send({"refused": str(error)})
        sys.exit(REFUSED)
    except Exception:
        told.send({"failed": traceback.format_exc()})
        raise
    told.send(_told(asked))


def _told(asked: AskResult) -> dict[str, Any]:
    stopped = str(asked.stopped) if asked.stopped else None
    return {"counts": dict(asked.counts), "stopped": stopped, "sent": asked.sent, "spent": asked.spent}


if __name__ == "__main__":
    print(json.dumps(_told(Task(**json.loads(sys.argv[1])).ask())))
