"""The book itself: what was intended, sent, answered and paid, in an SQL database that survives a crash at any moment.

Everything here is synchronous and one transaction per call. What comes back from a call is on the disk.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.ledger import accounts, database, earlier_answers, rate_limiter, spill, stored_answers
from nift_assets.ledger.database import among, chunks, clean, execute_many, insert_from, insert_new, outlasting
from nift_assets.ledger.locks import AdvisoryLocks, FileLocks, Lock, Locks, locked
from nift_assets.ledger.opening import opened
from nift_assets.ledger.rate_limiter import LimitObservations, RateLimiter
from nift_assets.ledger.spill import Spill
from nift_assets.ledger.stored_answers import FinalAnswer
from nift_assets.ledger.tables import (
    SENT,
    UNCLAIMED,
    answers,
    attempts,
    limitless_number,
    rate_limiters,
    requests,
    sessions,
    wanted,
)
from nift_assets.protocol.answer import Status, StoredResponse
from nift_assets.protocol.request import Request
from nift_assets.secrets import redaction

log = logging.getLogger(__name__)

# So many questions are one transaction: each waits for the disk, and keeps other writers waiting.
INTENDED_AT_A_TIME = 5_000
# The most characters that are kept of what a server says of itself.
CAUSE, REQUEST_ID, DETAIL = 64, 200, 500
# Who shares a writer waits so long for the others to have begun.
SECONDS_TO_BEGIN = 60.0
# Why an attempt is unknown whose session ended before it did.
INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who pays: a study and its teacher or judge; `writer` names the one place that may ask at a time, or that several
    processes ask for together if it is `shared`.

    With `reuse_below_limit` an answer that ended by itself under a smaller limit of tokens is not asked for again.
    """

    study: str
    who: str
    writer: str
    shared: bool = False
    reuse_below_limit: bool = True
    study_cap: int | None = None
    who_cap: int | None = None

    def caps(self) -> list[tuple[str, int | None]]:
        """The accounts a call is booked on, each with its cap in billionths of a dollar."""
        return [("", self.study_cap), (self.who, self.who_cap)]


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What a request needs in order to leave: room under every cap for the most it can cost, and its tokens' room."""

    key: str
    amount: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class AttemptResult:
    """How one attempt ended. With `body` it is a final answer; with `outcome` the request is given up for this run."""

    number: int
    key: str
    state: Literal["answered", "failed", "unknown"]
    reserved: int
    spent: int = 0
    cause: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    headers: str | None = None
    body: bytes | None = None
    evidence: bytes | None = None
    outcome: Status | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExchangeResult:
    """What an exchange came to: the attempts that may leave now, first come first served, and what holds the next back.

    Where that is a cap, `room` is what it leaves. `answered` are keys that need not leave any more: somebody
    has answered them meanwhile. `fenced` says that others have taken this session for dead, and may be asking what it
    asked.
    """

    numbers: Sequence[int]
    answered: Collection[str] = ()
    wait: float = 0.0
    rate_limited: bool = False
    learned: float | None = None
    over_budget: str | None = None
    room: int = 0
    fenced: bool = False


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The keys of some requests by what has to be done: asked by us, waited for, or left alone."""

    ours: Sequence[str]
    elsewhere: Sequence[str]
    in_batch: Sequence[str]
    unknown: Sequence[str]


class Book:
    """The ledger at an SQLAlchemy address: an SQLite file in WAL mode with full synchronisation, or PostgreSQL."""

    def __init__(self, url: str | sa.URL, *, look: bool = False) -> None:
        """Opens the ledger, and makes it if it is not there. Whoever only wants to `look` may open one that cannot be
        written. ValueError for one that holds less than it did, or that this program cannot use."""
        self.url = url
        self._engine = opened(url, look=look)
        self._hurried = database.hurried(self._engine)
        self.spill = Spill(spill.folders(self._engine.url))
        self.locks: Locks
        self._held: dict[int, list[Lock]] = {}
        if self._engine.dialect.name == "sqlite":
            self.locks = FileLocks(Path(f"{self._engine.url.database}.locks"))
        else:
            self.locks = AdvisoryLocks(self._engine)
        if self.spill.sessions():
            try:
                self._take_in(self._hurried)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                log.warning("what waits to be taken into the ledger is not yet: %s", redaction.safe(error))

    # -- who asks ------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, writer: str, *, shared: bool = False) -> Iterator[int]:
        """A numbered session that is the only one of its writer, or beside others that share it; what a dead one left
        in flight becomes unknown. ValueError while another asks as the writer, and one of the two does not share it."""
        with ExitStack() as alive, self._writer(writer, shared=shared) as lock:
            number, own, held = self._begin(writer)
            alive.enter_context(held)
            self._held[number] = [own]
            if shared:
                lock.release()  # whoever wants to be alone sees the session itself
            else:
                self._held[number].append(lock)
            try:
                self.recover()
                yield number
            finally:
                del self._held[number]
                self._end(number)

    @contextmanager
    def _writer(self, writer: str, *, shared: bool) -> Iterator[Lock]:
        busy = f"another run is asking as {writer} right now; wait until it ends"
        name, until = f"writer {writer}", time.monotonic() + SECONDS_TO_BEGIN
        # Another that shares it holds the lock until its session has begun.
        while (lock := self.locks.hold(name)) is None:
            if not shared or time.monotonic() > until:
                raise ValueError(busy)
            time.sleep(0.05)
        try:
            if not shared and self._is_asking(writer):
                time.sleep(0.2)  # whoever clears away behind a dead session holds its lock for a moment
                if self._is_asking(writer):
                    raise ValueError(busy)
            yield lock
        finally:
            lock.release()

    @outlasting
    def _is_asking(self, writer: str) -> bool:
        """Whether a session of the writer is alive."""
        open_ones = sa.select(sessions.c.id).where(~sessions.c.ended, sessions.c.writer == writer)
        with self.reading() as connection:
            found = connection.execute(open_ones).scalars().all()
        return not all(self.locks.free(f"session {number}") for number in found)

    @outlasting
    def _begin(self, writer: str) -> tuple[int, Lock, ExitStack]:
        with ExitStack() as held:
            with self._engine.begin() as connection:
                row = {"writer": writer, "host": socket.gethostname(), "pid": os.getpid(), "began_at": _now()}
                insert = sa.insert(sessions).values(**row, ended=False).returning(sessions.c.id)
                number = int(connection.execute(insert).scalar_one())
                # Locked before anybody can see the row: a session without its lock is taken for a dead one.
                own = held.enter_context(locked(self.locks, f"session {number}", f"session {number} is taken"))
            return number, own, held.pop_all()

    def _end(self, number: int) -> None:
        """Ends a session of this process. One that cannot be ended now is ended by who recovers what it has left."""
        try:
            self._end_now(number)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            log.warning("session %s is ended by the next to use the ledger: %s", number, redaction.safe(error))

    @outlasting
    def _end_now(self, number: int) -> None:
        self._take_in(self._engine)
        if number in self.spill.sessions():
            return  # whoever takes that in ends it
        with self._engine.begin() as connection:
            _end_session(connection, number)
        self.locks.forget(f"session {number}")

    @outlasting
    def recover(self) -> int:
        """Settles what sessions that are gone have left: their attempts in flight are unknown, their claims free.

        What they had to put outside the ledger is taken in before; a session of which something still lies there stays
        as it is. Returns how many attempts became unknown.
        """
        self._take_in(self._engine)
        with self.reading() as connection:
            not_ended = connection.execute(sa.select(sessions.c.id).where(~sessions.c.ended)).scalars().all()
        unknown, spilled = 0, self.spill.sessions()
        for number in not_ended:
            lock = None if number in spilled else self.locks.hold(f"session {number}")
            if lock is None:
                continue
            try:  # held until it has ended, so that one whose lock was lost for a moment does not take it again
                with self._engine.begin() as connection:
                    unknown += _end_session(connection, number)
            finally:
                lock.release()
            self.locks.forget(f"session {number}")
        return unknown

    def _take_in(self, engine: sa.Engine) -> None:
        """Settles what sessions that are gone had to put outside the ledger, and nothing of those that live."""
        for left in self.spill.left_behind():
            with engine.begin() as connection:
                strange = [row for row in left.rows if not _settle_spilled(connection, row)]
            if strange or left.damaged:
                log.warning(
                    "%s: %s of %s answers are of questions that this ledger does not know, and %s lines are damaged",
                    left.put_aside(),
                    len(strange),
                    len(left.rows),
                    left.damaged,
                )
            else:
                left.discard()

    # -- what is asked -------------------------------------------------------------------------------------------

    @outlasting
    def intend(self, session: int, asker: Asker, questions: Sequence[Request]) -> Claims:
        """Writes down that the questions are wanted, and takes those nobody has answered or is asking."""
        ours: list[str] = []
        elsewhere: list[str] = []
        in_batch: list[str] = []
        unknown: list[str] = []
        crash_points.reach("before_intent")
        for portion in chunks(questions, INTENDED_AT_A_TIME):
            for key, claimed_by, batch, outcome in self._claim(session, asker, portion):
                if outcome == "unknown":
                    unknown.append(key)
                elif batch is not None:
                    in_batch.append(key)
                elif claimed_by == session:
                    ours.append(key)
                else:
                    elsewhere.append(key)
        crash_points.reach("after_intent")
        return Claims(ours=ours, elsewhere=elsewhere, in_batch=in_batch, unknown=unknown)

    def _claim(self, session: int, asker: Asker, portion: Sequence[Request]) -> list[Any]:
        by_key = {question.key: question for question in portion}
        known, unwanted, missing = self._look(asker, by_key)
        if not unwanted and not missing:
            return []  # nothing is written for who finds all answers there
        now = _now()
        with self._engine.begin() as connection:
            if connection.execute(_ENDED, {"of_session": session}).scalar() is not False:
                # What it claimed would be free for nobody: its claims went when it was ended.
                raise ValueError(
                    f"another process has taken over from {asker.writer}; run this again when it has ended"
                )
            # In the order of keys, here and below, so that two who want the same rows do not wait for each other. What
            # is new is claimed as it is written down; what another has written down since we looked is not ours.
            rows = [
                {
                    "key": key,
                    "provider": by_key[key].provider,
                    "model": by_key[key].model,
                    "body": by_key[key].body(),
                    "intended_at": now,
                    "claimed_by": session,
                    "limitless": limitless_number(by_key[key].limitless_key) if by_key[key].output_limit else None,
                }
                for key in sorted(missing - known)
            ]
            insert_new(connection, requests, rows)
            lock_questions(connection, among(connection, requests.c.key, missing | unwanted))
            if unwanted:
                numbers = sa.select(requests.c.number, sa.literal(asker.study), sa.literal(asker.who))
                insert_from(connection, wanted, numbers.where(among(connection, requests.c.key, unwanted)))
            if not missing:
                return []
            unanswered = [by_key[key] for key in missing]
            earlier_answers.take(connection, session, unanswered, below_limit=asker.reuse_below_limit)
            if known := missing & known:
                free = UNCLAIMED & requests.c.outcome.is_distinct_from("unknown")
                mine = among(connection, requests.c.key, known) & free
                claim = sa.update(requests).where(mine).values(claimed_by=session, outcome=None, detail=None)
                connection.execute(claim)
            # Looked up behind the claim: what another session answered just before is an answer.
            columns = (requests.c.key, requests.c.claimed_by, requests.c.in_batch, requests.c.outcome)
            rows_now = sa.select(*columns).where(among(connection, requests.c.key, missing), ~_HAS_ANSWER)
            claims = {row[0]: row for row in connection.execute(rows_now)}
        return [claims[key] for key in by_key if key in claims]

    def _look(self, asker: Asker, by_key: Mapping[str, Request]) -> tuple[set[str], set[str], set[str]]:
        """Which questions are written down, which of all this asker has not wanted so far, and which have no answer."""
        mine = (wanted.c.request == requests.c.number) & (wanted.c.study == asker.study) & (wanted.c.who == asker.who)
        query = sa.select(requests.c.key, wanted.c.request.is_not(None)).outerjoin(wanted, mine)
        with self.reading() as connection:
            found = dict(map(tuple, connection.execute(query.where(among(connection, requests.c.key, by_key)))))
            # Of all, also of those that are not written down: an attempt may remember what a damaged index does not.
            there = stored_answers.there(connection, list(by_key))
        return set(found), {key for key in by_key if not found.get(key)}, by_key.keys() - there

    @outlasting
    def answered(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that have a final answer. DamagedLedger where one had, and has none any more."""
        with self.reading() as connection:
            return {key for portion in chunks(list(keys)) for key in stored_answers.there(connection, portion)}

    @outlasting
    def settled(self, questions: Sequence[Request], *, reuse_below_limit: bool) -> set[str]:
        """The keys of the questions that nobody has to be asked: answered, or answered by another key, which a smaller
        limit gives them."""
        done = self.answered([question.key for question in questions])
        with self.reading() as connection:
            for portion in chunks([question for question in questions if question.key not in done]):
                done |= earlier_answers.answered(connection, portion, below_limit=reuse_below_limit).keys()
        return done

    def stored(self, keys: Sequence[str]) -> Iterator[StoredResponse]:
        """The final answers of the keys that have one, as they came."""
        query = sa.select(*stored_answers.COLUMNS).outerjoin(requests, requests.c.key == answers.c.key)

        @outlasting
        def read(portion: Sequence[str]) -> Sequence[Any]:
            with self.reading() as connection:
                return connection.execute(query.where(among(connection, answers.c.key, portion))).all()

        for portion in chunks(keys):
            yield from map(stored_answers.read, read(portion))

    @outlasting
    def outcomes(self, keys: Sequence[str]) -> dict[str, tuple[Status, str | None]]:
        """How the last try of each key without a final answer ended: pending where there was none, and where nobody has
        wanted it yet."""
        columns = (requests.c.key, requests.c.outcome, requests.c.detail)
        never: dict[str, tuple[Status, str | None]] = dict.fromkeys(keys, ("pending", None))
        with self.reading() as connection:
            return never | {
                key: (outcome or "pending", detail)
                for portion in chunks(keys)
                for key, outcome, detail in connection.execute(
                    sa.select(*columns).where(among(connection, requests.c.key, portion))
                )
            }

    # -- what is sent and what comes back ------------------------------------------------------------------------

    @outlasting
    def keep(self, session: int, here: Sequence[tuple[str, int, bytes]]) -> None:
        """Stores final answers (key, status, body) that were made in this process and cost nothing."""
        with self._engine.begin() as connection:
            stored_answers.store(
                connection, session, _now(), [FinalAnswer(key, status, "{}", body) for key, status, body in here]
            )

    @outlasting
    def reread(self, statuses: Mapping[str, Status]) -> None:
        """Writes down that answers are read as something else than they were when they were stored."""
        with self._engine.begin() as connection:
            lock_questions(connection, among(connection, requests.c.key, statuses.keys()))
            connection.execute(_REREAD, [{"of": key, "read_as": status} for key, status in sorted(statuses.items())])

    def exchange(
        self,
        session: int,
        asker: Asker,
        settled: Sequence[AttemptResult],
        reservations: Sequence[Reservation],
        *,
        first_number: int,
        limiter: str,
        observed: LimitObservations,
    ) -> ExchangeResult:
        """One commit: how attempts ended and what came back, and which waiting requests may leave, in their order.

        A request may leave if the shared rate limiter and every cap have room for it; its attempt is written down here.
        """
        crash_points.reach("before_commit")
        # A lock can be lost without the process that held it noticing: a database that restarted, a folder that was
        # removed. Whoever took over has ended the session, and then nothing more may leave.
        held = all(lock.keep() for lock in self._held.get(session, ()))
        with self._hurried.begin() as connection:
            ended = connection.execute(_ENDED, {"of_session": session}).scalar()
            accounts.lock(connection, asker.study, asker.who)
            settle(connection, session, asker.study, asker.who, settled)
            if ended is not False or not held:
                return ExchangeResult(numbers=(), fenced=True)
            done = _answered(connection, [reservation.key for reservation in reservations])
            wanted = [reservation for reservation in reservations if reservation.key not in done]
            exchanged = _admit(connection, session, asker, wanted, first_number, limiter, observed)
        crash_points.reach("after_commit")
        return replace(exchanged, answered=done) if done else exchanged

    def reconcile(self, session: int, asker: Asker, first_number: int) -> int:
        """The number of the next attempt after an exchange that failed.

        The commit may have gone through all the same. What it admitted unheard has never left, and costs nothing.
        """
        mine = attempts.c.session == session
        with self._hurried.begin() as connection:
            accounts.lock(connection, asker.study, asker.who)
            unheard = mine & _OPEN & (attempts.c.number >= first_number)
            reserved = connection.execute(sa.select(sa.func.sum(attempts.c.reserved)).where(unheard)).scalar() or 0
            connection.execute(
                sa.update(attempts).where(unheard).values(state="failed", cause="never left", reserved=0)
            )
            accounts.post(connection, asker.study, asker.who, reserved=-int(reserved))
            last = connection.execute(sa.select(sa.func.max(attempts.c.number)).where(mine)).scalar() or 0
        return max(first_number, int(last) + 1)

    @outlasting
    def give_up(self, keys: Sequence[str], outcome: Status, detail: str) -> None:
        """Writes down that requests were given up for this run without being sent; the next one may ask them again."""
        rows = [{"of": key, "outcome": outcome, "detail": clean(detail, DETAIL)} for key in sorted(keys)]
        with self._engine.begin() as connection:
            connection.execute(_GIVE_UP, rows)

    @outlasting
    def open_accounts(self, asker: Asker) -> None:
        """Makes the accounts a call is booked on, where they are not there yet."""
        with self._engine.begin() as connection:
            accounts.create(connection, asker.study, asker.who)

    # -- for others ----------------------------------------------------------------------------------------------

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection that sees one state of the book and keeps no writer waiting."""
        return database.reading(self._engine)

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """A transaction for whoever else keeps accounts in the book: the batch mode."""
        return self._engine.begin()


def settle(connection: sa.Connection, session: int, study: str, who: str, settled: Sequence[AttemptResult]) -> None:
    """Writes down how attempts ended, keeps the final answers, and moves what was reserved; no commit.

    Only an attempt that is still open is booked: one whose settlement went through unheard is not booked twice. Its
    answer is kept in any case.
    """
    if not settled:
        return
    reserved = _still_open(connection, session, settled)
    booked = list({s.number: s for s in reversed(settled) if s.number in reserved}.values())
    if booked:
        execute_many(connection, _SETTLE, [_settling(session, s, reserved[s.number]) for s in booked])
    kept = [
        FinalAnswer(s.key, s.http_status or 0, s.headers or "{}", s.body, s.number)
        for s in settled
        if s.body is not None
    ]
    stored_answers.store(connection, session, _now(), kept)
    given_up = [
        {"of": s.key, "outcome": s.outcome, "detail": clean(s.detail, DETAIL), "of_session": session}
        for s in booked
        if s.outcome
    ]
    if given_up:
        connection.execute(_GIVE_UP_OWN, sorted(given_up, key=lambda row: str(row["of"])))
    freed = sum(reserved[s.number] for s in booked if s.state != "unknown")
    accounts.post(
        connection,
        study,
        who,
        reserved=-freed,
        spent=sum(s.spent for s in booked),
        input_tokens=sum(s.input_tokens or 0 for s in booked),
        output_tokens=sum(s.output_tokens or 0 for s in booked),
    )


def lock_questions(connection: sa.Connection, those: sa.ColumnElement[bool]) -> None:
    """Locks questions until the transaction ends, in the order of their keys, so that two who want the same do not wait
    for each other. SQLite has one writer, and no need to."""
    if connection.dialect.name != "sqlite":
        query = sa.select(requests.c.number).where(those)
        connection.execute(query.order_by(requests.c.key).with_for_update())


def _answered(connection: sa.Connection, keys: Collection[str]) -> set[str]:
    return set(connection.execute(sa.select(answers.c.key).where(among(connection, answers.c.key, keys))).scalars())


def spilled(session: int, asker: Asker, attempt: AttemptResult) -> dict[str, Any]:
    """How an attempt ended, as a row of the spill."""
    return {"session": session, "study": asker.study, "who": asker.who, "attempt": asdict(attempt)}


def _settle_spilled(connection: sa.Connection, row: dict[str, Any]) -> bool:
    """Settles an attempt from the spill; False if the ledger does not know its question, as one that is another."""
    attempt = AttemptResult(**row["attempt"])
    if connection.execute(sa.select(requests.c.key).where(requests.c.key == attempt.key)).scalar() is None:
        return False
    accounts.lock(connection, row["study"], row["who"])
    settle(connection, row["session"], row["study"], row["who"], [attempt])
    return True


def _still_open(connection: sa.Connection, session: int, settled: Sequence[AttemptResult]) -> dict[int, int]:
    """What is reserved for each of the attempts that nobody has settled yet."""
    keys = {s.number: s.key for s in settled}
    span = {"of_session": session, "first": min(keys), "last": max(keys)}
    return {
        number: reserved
        for number, key, reserved in connection.execute(_OPEN_OF, span)
        # A ledger that was put back from a copy gives its numbers out anew.
        if keys.get(number) == key
    }


def _admit(
    connection: sa.Connection,
    session: int,
    asker: Asker,
    reservations: Sequence[Reservation],
    first_number: int,
    limiter_name: str,
    observed: LimitObservations,
) -> ExchangeResult:
    amounts = [reservation.amount for reservation in reservations]
    affordable, over = accounts.affordable(connection, asker.study, asker.caps(), amounts)
    limiter = _rate_limiter(connection, limiter_name)
    tokens = [reservation.tokens for reservation in reservations[:affordable]]
    admission = rate_limiter.admit(limiter, observed, tokens, database.clock(connection))
    if admission.limiter != replace(limiter, measured_at=admission.limiter.measured_at):
        _put_rate_limiter(connection, limiter_name, admission.limiter)
    count = admission.admitted
    leaving = reservations[:count]
    if leaving:
        sent_at = _now()
        rows = [
            {
                "session": session,
                "number": first_number + place,
                "key": reservation.key,
                "study": asker.study,
                "who": asker.who,
                "state": "sent",
                "sent_at": sent_at,
                "reserved": reservation.amount,
                "spent": 0,
            }
            for place, reservation in enumerate(leaving)
        ]
        execute_many(connection, _SEND, rows)
        accounts.post(connection, asker.study, asker.who, reserved=sum(amounts[:count]), sent=count)
    return ExchangeResult(
        numbers=range(first_number, first_number + count),
        wait=admission.wait,
        rate_limited=admission.rate_limited,
        learned=admission.limiter.learned,
        over_budget=over if count == affordable < len(reservations) else None,
        room=0 if over is None else accounts.left(connection, asker.study, asker.caps()) or 0,
    )


def _end_session(connection: sa.Connection, number: int) -> int:
    """Settles a session that is over or dead; its attempts still in flight are unknown and stay reserved."""
    lost = (attempts.c.session == number) & (attempts.c.state == SENT) & attempts.c.batch.is_(None)
    unknown = sa.update(attempts).where(lost).values(state="unknown", cause=INTERRUPTED)
    count = connection.execute(unknown).rowcount
    claimed = requests.c.claimed_by == number
    lock_questions(connection, claimed)
    connection.execute(sa.update(requests).where(claimed).values(claimed_by=None))
    connection.execute(sa.update(sessions).where(sessions.c.id == number).values(ended=True))
    return int(count)


def _rate_limiter(connection: sa.Connection, name: str) -> RateLimiter:
    row = connection.execute(_RATE_LIMITER, {"of_name": name}).mappings().first()
    return RateLimiter(**row) if row else RateLimiter()


def _put_rate_limiter(connection: sa.Connection, name: str, limiter: RateLimiter) -> None:
    values = {field.name: getattr(limiter, field.name) for field in fields(RateLimiter)}
    insert_new(connection, rate_limiters, [{"name": name, **values}])
    connection.execute(sa.update(rate_limiters).where(rate_limiters.c.name == name).values(values))


# Not settled by whoever sent it: on its way, or given up for lost by others when its session was.
_OPEN = (attempts.c.state == "sent") | ((attempts.c.state == "unknown") & (attempts.c.cause == INTERRUPTED))
# Of a session there are no more than it may have in flight, however far apart their numbers are.
_OPEN_OF = (
    sa.select(attempts.c.number, attempts.c.key, attempts.c.reserved)
    .where(attempts.c.session == sa.bindparam("of_session"), _OPEN)
    .where(attempts.c.number.between(sa.bindparam("first"), sa.bindparam("last")))
    .with_for_update()
)
_SEND = sa.insert(attempts)
_SETTLE = (
    sa.update(attempts)
    .where(attempts.c.session == sa.bindparam("of_session"), attempts.c.number == sa.bindparam("of_number"))
    .values(
        {
            name: sa.bindparam(f"new_{name}")
            for name in (
                "state",
                "cause",
                "http_status",
                "request_id",
                "input_tokens",
                "output_tokens",
                "reserved",
                "spent",
                "evidence",
            )
        }
    )
)
_HAS_ANSWER = sa.exists().where(answers.c.key == requests.c.key)
_ENDED = sa.select(sessions.c.ended).where(sessions.c.id == sa.bindparam("of_session")).with_for_update(read=True)
_RATE_LIMITER = (
    sa.select(*(rate_limiters.c[field.name] for field in fields(RateLimiter)))
    .where(rate_limiters.c.name == sa.bindparam("of_name"))
    .with_for_update()
)
_GIVE_UP = (
    sa.update(requests)
    .where(requests.c.key == sa.bindparam("of"))
    # No longer claimed: another who wants it need not wait for this session to end.
    .values(outcome=sa.bindparam("outcome"), detail=sa.bindparam("detail"), claimed_by=None)
)
_REREAD = sa.update(answers).where(answers.c.key == sa.bindparam("of")).values(status=sa.bindparam("read_as"))
# A session that was taken for dead has no say in what another is asking by now.
_GIVE_UP_OWN = _GIVE_UP.where(requests.c.claimed_by.is_(None) | (requests.c.claimed_by == sa.bindparam("of_session")))


def _settling(session: int, s: AttemptResult, reserved: int) -> dict[str, Any]:
    return {
        "of_session": session,
        "of_number": s.number,
        "new_state": s.state,
        "new_cause": clean(s.cause, CAUSE),
        "new_http_status": s.http_status,
        "new_request_id": clean(s.request_id, REQUEST_ID),
        "new_input_tokens": s.input_tokens,
        "new_output_tokens": s.output_tokens,
        # What may have been billed stays reserved until somebody says what became of it.
        "new_reserved": reserved if s.state == "unknown" else 0,
        "new_spent": s.spent,
        "new_evidence": s.evidence,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat()
