"""The book alone, with two writers who do anything in any order: what it says of money and answers always holds."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nift_assets.ledger import report
from nift_assets.ledger.book import Asker, AttemptResult, Book, Reservation, spilled
from nift_assets.ledger.rate_limiter import LimitObservations
from nift_assets.ledger.tables import answers, attempts, requests, sessions, spending, wanted
from tests.ledger.asking import questions

QUESTIONS = questions(6)
MOST, COST = 100, 40
CAP = 5 * MOST
WHO = ("t", "u")

writers = st.sampled_from((0, 1))
# How a commit comes out: it is heard of, it fails, or it goes through and nobody hears.
heard = st.sampled_from(("heard", "heard", "heard", "fails", "unheard"))
endings = st.sampled_from(("answered", "rejected", "failed", "unknown", "given up"))


class Unheard(Exception):
    """What a writer meets whose commit it does not hear of."""


@dataclass
class Writer:
    """One writer, and what it knows of itself."""

    asker: Asker
    book: Book
    alive: AbstractContextManager[int] | None = None
    session: int = 0
    claimed: set[str] = field(default_factory=set)
    under_way: dict[int, str] = field(default_factory=dict)
    to_settle: list[AttemptResult] = field(default_factory=list)
    next_number: int = 1
    in_doubt: bool = False

    @contextmanager
    def committing(self, how: str) -> Iterator[None]:
        """Makes the next commit come out so."""
        dialect = self.book._engine.dialect
        commit = dialect.do_commit

        def failing(connection: Any) -> None:
            if how == "unheard":
                commit(connection)
            raise Unheard

        if how != "heard":
            dialect.do_commit = failing  # type: ignore[method-assign]
        try:
            yield
        finally:
            dialect.do_commit = commit  # type: ignore[method-assign]


class BookStates(RuleBasedStateMachine):
    """Two writers of one ledger. `left` are the attempts that have left, each with its key."""

    @initialize()
    def open(self) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(prefix="nift-states-", dir=memory)
        self.url = f"sqlite:///{self.folder.name}/ledger.sqlite"
        self.buried: list[Any] = []
        self.left: dict[tuple[int, int], str] = {}
        self.answered: set[str] = set()
        self.writers = [
            Writer(Asker(study="s", who=who, writer=f"s/{who}", study_cap=CAP, who_cap=CAP * 2 // 3), Book(self.url))
            for who in WHO
        ]

    def teardown(self) -> None:
        if not hasattr(self, "writers"):
            return
        for writer in self.writers:
            if writer.alive is not None:
                writer.alive.__exit__(None, None, None)
            writer.book._engine.dispose()
        self.buried.clear()
        self.folder.cleanup()

    # -- what a writer does

    @rule(of=writers, how=heard)
    def begins(self, of: int, how: str) -> None:
        writer = self.writers[of]
        if writer.alive is not None:
            with pytest.raises(ValueError, match="another run is asking"), Book(self.url).session(writer.asker.writer):
                pass
            return
        alive = writer.book.session(writer.asker.writer)
        try:
            with writer.committing(how):
                session = alive.__enter__()
        except Unheard:
            return
        self.writers[of] = Writer(writer.asker, writer.book, alive, session)
        writer.book.open_accounts(writer.asker)

    @rule(of=writers, chosen=st.sets(st.sampled_from(range(len(QUESTIONS))), min_size=1))
    def intends(self, of: int, chosen: set[int]) -> None:
        writer = self.writers[of]
        if writer.alive is None:
            return
        claims = writer.book.intend(writer.session, writer.asker, [QUESTIONS[n] for n in chosen])
        assert not set(claims.ours) & self.answered
        assert not set(claims.ours) & self.writers[1 - of].claimed
        writer.claimed |= set(claims.ours)

    @rule(of=writers, which=st.integers(0, 20), ending=endings)
    def comes_back(self, of: int, which: int, ending: str) -> None:
        """An attempt comes back; nothing is in the book of it yet."""
        writer = self.writers[of]
        if not writer.under_way:
            return
        number = sorted(writer.under_way)[which % len(writer.under_way)]
        writer.to_settle.append(_ended(number, writer.under_way.pop(number), ending))

    @rule(of=writers, most=st.integers(0, 4), how=heard, look=heard)
    def exchanges(self, of: int, most: int, how: str, look: str) -> None:
        """One commit of what came back and what may leave; after one that was not heard of the book is asked first."""
        writer = self.writers[of]
        if writer.alive is None:
            return
        try:
            if writer.in_doubt:
                with writer.committing(look):
                    writer.next_number = writer.book.reconcile(writer.session, writer.asker, writer.next_number)
            busy = set(writer.under_way.values()) | {one.key for one in writer.to_settle}
            wanted = [Reservation(key=key, amount=MOST, tokens=1) for key in sorted(writer.claimed - busy)][:most]
            writer.in_doubt = True
            with writer.committing(how):
                exchanged = writer.book.exchange(
                    writer.session,
                    writer.asker,
                    writer.to_settle,
                    wanted,
                    first_number=writer.next_number,
                    limiter="l",
                    observed=LimitObservations(),
                )
        except Unheard:
            return
        writer.in_doubt = False
        assert not exchanged.fenced
        self._take(writer, writer.to_settle)
        leaving = [one for one in wanted if one.key not in exchanged.answered]
        for number, reservation in zip(exchanged.numbers, leaving, strict=False):
            assert reservation.key not in self.answered
            self.left[writer.session, number] = writer.under_way[number] = reservation.key
        writer.next_number += len(exchanged.numbers)

    def _take(self, writer: Writer, settled: Sequence[AttemptResult]) -> None:
        for one in settled:
            if one.body is not None:
                self.answered.add(one.key)
            if one.body is not None or one.outcome is not None:
                writer.claimed.discard(one.key)
        writer.to_settle = []

    @rule(of=writers)
    def ends(self, of: int) -> None:
        writer = self.writers[of]
        if writer.alive is not None:
            writer.alive.__exit__(None, None, None)
            self.writers[of] = Writer(writer.asker, writer.book)

    @rule(of=writers, spills=st.booleans(), torn=st.integers(0, 40))
    def is_killed(self, of: int, spills: bool, torn: int) -> None:
        """The system lets go of its locks; what it had put into the spill may end in a line that was cut short."""
        writer = self.writers[of]
        if writer.alive is None:
            return
        if spills and writer.to_settle:
            file = writer.book.spill.of(writer.session)
            for one in writer.to_settle:
                file.keep({one.number: spilled(writer.session, writer.asker, one)})
            (path,) = file.places()
            file.close()
            with path.open("ab") as end:
                end.write(b"00000000 {" * torn)
            self._take(writer, writer.to_settle)
        for lock in writer.book._held[writer.session]:
            lock.release()
        # What Python does with the rest of the session one day is nothing that the dead do.
        writer.book._end = lambda _: None  # type: ignore[method-assign]
        self.buried.append(writer.alive)
        self.writers[of] = Writer(writer.asker, Book(self.url))

    # -- what others do

    @rule()
    def somebody_opens_it(self) -> None:
        Book(self.url)._engine.dispose()

    @rule(not_billed=st.booleans())
    @precondition(lambda self: any(writer.alive is None for writer in self.writers))
    def a_person_decides_on_what_is_unknown(self, not_billed: bool) -> None:
        report.ask_unknown_again(self.writers[0].book, not_billed=not_billed)

    # -- what holds

    @invariant()
    def the_accounts_are_the_sum_of_the_attempts_and_below_their_caps(self) -> None:
        if not hasattr(self, "writers"):
            return
        with self.writers[0].book.reading() as connection:
            tried = connection.execute(sa.select(attempts)).all()
            accounts = connection.execute(sa.select(spending)).all()
        for account in accounts:
            mine = [row for row in tried if account.who in ("", row.who)]
            assert account.reserved == sum(row.reserved for row in mine) >= 0
            assert account.spent == sum(row.spent for row in mine)
            assert account.reserved + account.spent <= (CAP if account.who == "" else CAP * 2 // 3)

    @invariant()
    def the_report_is_what_a_count_from_the_beginning_comes_to(self) -> None:
        if not hasattr(self, "writers"):
            return
        with self.writers[0].book.reading() as connection:
            asked = {row.number: row for row in connection.execute(sa.select(requests)).all()}
            read_as = dict(connection.execute(sa.select(answers.c.key, answers.c.status)).all())
            tried = connection.execute(sa.select(attempts)).all()
            found: dict[str, Counter[str]] = {}
            for number, who in connection.execute(sa.select(wanted.c.request, wanted.c.who)):
                question = asked[number]
                state = read_as.get(question.key) or question.outcome or "pending"
                found.setdefault(who, Counter())[state] += 1
        reported = report.report(self.writers[0].book).accounts
        assert {account.who: dict(account.states) for account in reported} == found
        for account in reported:
            mine = [row for row in tried if row.who == account.who]
            assert (account.sent, account.output_tokens) == (len(mine), sum(row.output_tokens or 0 for row in mine))

    @invariant()
    def no_answer_is_lost_and_none_is_asked_for_twice_at_once(self) -> None:
        if not hasattr(self, "writers"):
            return
        book = self.writers[0].book
        with book.reading() as connection:
            states = {(row.session, row.number): row for row in connection.execute(sa.select(attempts)).all()}
            stored = connection.execute(sa.select(answers.c.key, answers.c.session, answers.c.number)).all()
            ended = set(connection.execute(sa.select(sessions.c.id).where(sessions.c.ended)).scalars())
            claims = connection.execute(sa.select(requests.c.key, requests.c.claimed_by)).all()
        waiting = {row["attempt"]["key"] for left in _spilled(book) for row in left}
        assert self.answered <= {key for key, _, _ in stored} | waiting
        assert all(states[session, number].state in ("answered", "failed", "written_off", "not_billed")
                   for _, session, number in stored)  # fmt: skip
        open_keys = Counter(row.key for row in states.values() if row.state == "sent")
        assert not [key for key, count in open_keys.items() if count > 1]
        assert not [row for row in states.values() if row.state == "sent" and row.session in ended]
        assert not [key for key, session in claims if session in ended]
        # What has left is never taken for what cost nothing.
        assert not [one for one in self.left if states[one].cause == "never left"]


def _spilled(book: Book) -> Iterator[list[dict[str, Any]]]:
    from nift_assets.ledger.spill import _read

    for path in book.spill._files():
        yield list(_read(Path(path)).rows)


def _ended(number: int, key: str, ending: str) -> AttemptResult:
    own: dict[str, Any] = {"number": number, "key": key, "reserved": MOST}
    match ending:
        case "answered":
            return AttemptResult(state="answered", spent=COST, output_tokens=7, http_status=200, body=b"{}", **own)
        case "rejected":
            return AttemptResult(state="failed", cause="http_400", http_status=400, body=b"{}", **own)
        case "failed":
            return AttemptResult(state="failed", cause="http_503", **own)
        case "unknown":
            return AttemptResult(state="unknown", cause="timeout", **own)
    return AttemptResult(state="unknown", cause="timeout", outcome="unknown", **own)


def _run(examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        BookStates,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.fault("T23", runs="20 runs of 25 steps; slow: 400 of 60")
def test_money_and_answers_hold_whatever_two_writers_do() -> None:
    _run(20, 25)


@pytest.mark.slow
def test_money_and_answers_hold_whatever_two_writers_do_for_longer() -> None:
    _run(400, 60)
