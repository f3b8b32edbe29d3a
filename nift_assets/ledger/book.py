"""The book itself: what was intended, sent, answered and paid, in an SQL database that survives a crash at any moment.

Everything here is synchronous and one transaction per call. What comes back from a call is on the disk.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nift_assets import crash_points
from nift_assets.ledger import pace
from nift_assets.ledger.locks import AdvisoryLocks, FileLocks, Locks, held
from nift_assets.ledger.pace import Gauge, News
from nift_assets.ledger.tables import (
    VERSION,
    answers,
    attempts,
    gauges,
    metadata,
    requests,
    schema,
    sessions,
    spending,
    wanted,
)
from nift_assets.protocol.answer import Status, Stored
from nift_assets.protocol.request import Request

T = TypeVar("T")

# SQLite refuses a statement with more than 32,766 values.
AT_A_TIME = 500
SECONDS_TO_WAIT = 60
# The most characters that are kept of what a server says of itself.
CAUSE, REQUEST_ID, DETAIL = 64, 200, 500


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who pays: a study and its teacher or judge; `writer` names the one place that may ask at a time."""

    study: str
    who: str
    writer: str
    study_cap: int | None = None
    who_cap: int | None = None

    def caps(self) -> list[tuple[str, int | None]]:
        """The accounts a call is booked on, each with its cap in billionths of a dollar."""
        return [("", self.study_cap), (self.who, self.who_cap)]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request that would like to leave: the most it can cost and the tokens it is taken to need."""

    key: str
    reserve: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Settled:
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
class Admitted:
    """The attempts that may leave now, first come first served, and what holds the next one back; `fenced` if others
    have taken this session for dead, and may be asking what it asked."""

    numbers: Sequence[int]
    wait: float = 0.0
    held: bool = False
    learned: float | None = None
    over_budget: str | None = None
    fenced: bool = False


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What has to be done about some requests: asked by us, waited for, or left alone, each with the key."""

    ours: Sequence[str]
    elsewhere: Sequence[str]
    in_batch: Sequence[str]
    unknown: Sequence[str]


class Book:
    """The ledger at an SQLAlchemy address: an SQLite file in WAL mode with full synchronisation, or PostgreSQL."""

    def __init__(self, url: str) -> None:
        self.url = url
        # A server that restarted has closed its connections: each is tried before it is used.
        self._engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        self.locks: Locks
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _make_durable)
            sa.event.listen(self._engine, "begin", _begin)
            self.locks = FileLocks(Path(f"{self._engine.url.database}.locks"))
        else:
            self.locks = AdvisoryLocks(self._engine)
        self._make_tables()

    # -- who asks ------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, writer: str) -> Iterator[int]:
        """A numbered session that is the only one of its writer; what a dead one left in flight becomes unknown."""
        busy = f"another run is asking as {writer} right now; wait until it ends"
        with held(self.locks, f"writer {writer}", busy), ExitStack() as alive:
            with self._engine.begin() as connection:
                row = {"writer": writer, "host": socket.gethostname(), "pid": os.getpid(), "began_at": _now()}
                made = sa.insert(sessions).values(**row, ended=False).returning(sessions.c.id)
                number = connection.execute(made).scalar_one()
                # Locked before anybody can see the row: a session without its lock is taken for a dead one.
                alive.enter_context(held(self.locks, f"session {number}", f"session {number} is taken"))
            self.recover()
            try:
                yield number
            finally:
                with self._engine.begin() as connection:
                    _end_session(connection, number)
                self.locks.forget(f"session {number}")

    def recover(self) -> int:
        """Settles what sessions that are gone have left: their attempts in flight are unknown, their claims free.

        Returns how many attempts became unknown.
        """
        with self._reading() as connection:
            open_ones = connection.execute(sa.select(sessions.c.id).where(~sessions.c.ended)).scalars().all()
        dead = [number for number in open_ones if self.locks.free(f"session {number}")]
        found = 0
        for number in dead:
            with self._engine.begin() as connection:
                found += _end_session(connection, number)
            self.locks.forget(f"session {number}")
        return found

    # -- what is asked -------------------------------------------------------------------------------------------

    def intend(self, session: int, asker: Asker, questions: Sequence[Request]) -> Intent:
        """Writes down that the questions are wanted, and takes those nobody has answered or is asking."""
        ours: list[str] = []
        elsewhere: list[str] = []
        in_batch: list[str] = []
        unknown: list[str] = []
        crash_points.reach("before_intent")
        for some in chunks(questions):
            for key, claimed_by, batch, outcome in self._claim(session, asker, some):
                if outcome == "unknown":
                    unknown.append(key)
                elif batch is not None:
                    in_batch.append(key)
                elif claimed_by == session:
                    ours.append(key)
                else:
                    elsewhere.append(key)
        crash_points.reach("after_intent")
        return Intent(ours=ours, elsewhere=elsewhere, in_batch=in_batch, unknown=unknown)

    def _claim(self, session: int, asker: Asker, some: Sequence[Request]) -> list[Any]:
        by_key = {question.key: question for question in some}
        missing = by_key.keys() - self.answered(by_key)
        now = _now()
        with self._engine.begin() as connection:
            self._insert_new(
                connection, wanted, [{"study": asker.study, "who": asker.who, "key": key} for key in sorted(by_key)]
            )
            if not missing:
                return []
            # In the order of keys, here and below, so that two who want the same rows do not wait for each other.
            rows = [
                {
                    "key": key,
                    "provider": by_key[key].provider,
                    "model": by_key[key].model,
                    "body": by_key[key].body(),
                    "intended_at": now,
                }
                for key in sorted(missing)
            ]
            self._insert_new(connection, requests, rows)
            in_order = sa.select(requests.c.key).where(requests.c.key.in_(missing)).order_by(requests.c.key)
            connection.execute(in_order.with_for_update())
            nobody = requests.c.claimed_by.is_(None) & requests.c.in_batch.is_(None)
            mine = requests.c.key.in_(missing) & nobody & requests.c.outcome.is_distinct_from("unknown")
            connection.execute(sa.update(requests).where(mine).values(claimed_by=session, outcome=None, detail=None))
            # Looked up behind the claim: what another session answered just before is an answer.
            done = set(connection.execute(sa.select(answers.c.key).where(answers.c.key.in_(missing))).scalars())
            columns = (requests.c.key, requests.c.claimed_by, requests.c.in_batch, requests.c.outcome)
            found = {row[0]: row for row in connection.execute(sa.select(*columns).where(requests.c.key.in_(missing)))}
        return [found[key] for key in by_key if key in missing and key not in done]

    def answered(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have a final answer."""
        with self._reading() as connection:
            return {
                key
                for some in chunks(list(keys))
                for key in connection.execute(sa.select(answers.c.key).where(answers.c.key.in_(some))).scalars()
            }

    def stored(self, keys: Sequence[str]) -> Iterator[Stored]:
        """The final answers of the keys that have one, as they came."""
        columns = (answers.c.key, requests.c.provider, answers.c.http_status, answers.c.headers, answers.c.body)
        query = sa.select(*columns).join(requests, requests.c.key == answers.c.key)
        for some in chunks(keys):
            with self._reading() as connection:
                found = connection.execute(query.where(answers.c.key.in_(some))).all()
            for key, provider, http_status, headers, body in found:
                yield Stored(
                    key=key, provider=provider, http_status=http_status, headers=json.loads(headers), body=bytes(body)
                )

    def outcomes(self, keys: Sequence[str]) -> dict[str, tuple[Status, str | None]]:
        """How the last try of each key without a final answer ended: pending where there was none."""
        columns = (requests.c.key, requests.c.outcome, requests.c.detail)
        with self._reading() as connection:
            return {
                key: (outcome or "pending", detail)
                for some in chunks(keys)
                for key, outcome, detail in connection.execute(sa.select(*columns).where(requests.c.key.in_(some)))
            }

    # -- what is sent and what comes back ------------------------------------------------------------------------

    def keep(self, session: int, here: Sequence[tuple[str, int, bytes]]) -> None:
        """Stores final answers (key, status, body) that were made in this process and cost nothing."""
        now = _now()
        rows = [
            {"key": key, "session": session, "http_status": status, "headers": "{}", "body": body, "answered_at": now}
            for key, status, body in here
        ]
        with self._engine.begin() as connection:
            self._insert_new(connection, answers, rows)

    def exchange(
        self,
        session: int,
        asker: Asker,
        settled: Sequence[Settled],
        wishes: Sequence[Wish],
        *,
        first_number: int,
        gauge: str,
        news: News,
    ) -> Admitted:
        """One commit: how attempts ended and what came back, and which waiting requests may leave, in their order.

        A request may leave if the shared buckets and every cap have room for it; its attempt is written down here.
        """
        crash_points.reach("before_commit")
        with self._engine.begin() as connection:
            # A lock can be lost without the process that held it noticing: a database that restarted, a folder that
            # was removed. Whoever took over has ended the session, and then nothing more may leave.
            ended = connection.execute(_ENDED, {"of_session": session}).scalar()
            self._lock_accounts(connection, asker)
            self._settle(connection, session, asker, settled)
            if ended is not False:
                return Admitted(numbers=(), fenced=True)
            admitted = self._admit(connection, session, asker, wishes, first_number, gauge, news)
        crash_points.reach("after_commit")
        return admitted

    def heal(
        self, session: int, asker: Asker, settled: Sequence[Settled], first_number: int
    ) -> tuple[list[Settled], int]:
        """What an exchange that failed has left to do, if its commit went through after all: those still to be settled,
        and the number of the next attempt. What was admitted unheard has never left, and costs nothing."""
        mine = attempts.c.session == session
        with self._engine.begin() as connection:
            self._lock_accounts(connection, asker)
            sent = mine & (attempts.c.state == "sent")
            unheard = sent & (attempts.c.number >= first_number)
            reserved = connection.execute(sa.select(sa.func.sum(attempts.c.reserved)).where(unheard)).scalar() or 0
            connection.execute(
                sa.update(attempts).where(unheard).values(state="failed", cause="never left", reserved=0)
            )
            self._book(connection, asker, reserved=-int(reserved), spent=0)
            last = connection.execute(sa.select(sa.func.max(attempts.c.number)).where(mine)).scalar() or 0
            still = set(connection.execute(sa.select(attempts.c.number).where(sent)).scalars())
        return [each for each in settled if each.number in still], max(first_number, last + 1)

    def _lock_accounts(self, connection: sa.Connection, asker: Asker) -> None:
        """Takes the accounts in one order, so that two writers never wait for each other; SQLite has one writer."""
        if self._engine.dialect.name != "sqlite":
            for who in sorted({"", asker.who}):
                connection.execute(_TAKEN, {"of_study": asker.study, "of_who": who})

    def _settle(self, connection: sa.Connection, session: int, asker: Asker, settled: Sequence[Settled]) -> None:
        if not settled:
            return
        connection.execute(_SETTLE, [_settling(session, s) for s in settled])
        now = _now()
        kept = [
            {
                "key": s.key,
                "session": session,
                "number": s.number,
                "http_status": s.http_status,
                "headers": s.headers or "{}",
                "body": s.body,
                "answered_at": now,
            }
            for s in sorted(settled, key=lambda each: each.key)
            if s.body is not None
        ]
        self._insert_new(connection, answers, kept)
        given_up = [
            {"of": s.key, "outcome": s.outcome, "detail": clean(s.detail, DETAIL)} for s in settled if s.outcome
        ]
        if given_up:
            connection.execute(_GIVE_UP, sorted(given_up, key=lambda row: str(row["of"])))
        freed = sum(s.reserved for s in settled if s.state != "unknown")
        self._book(connection, asker, reserved=-freed, spent=sum(s.spent for s in settled))

    def _admit(
        self,
        connection: sa.Connection,
        session: int,
        asker: Asker,
        wishes: Sequence[Wish],
        first_number: int,
        gauge_name: str,
        news: News,
    ) -> Admitted:
        affordable, over = self._affordable(connection, asker, wishes)
        gauge = self._gauge(connection, gauge_name)
        turn = pace.turn(gauge, news, [wish.tokens for wish in wishes[:affordable]], self._clock(connection))
        if turn.gauge != replace(gauge, measured_at=turn.gauge.measured_at):
            self._put_gauge(connection, gauge_name, turn.gauge)
        count = turn.admitted
        leaving = wishes[:count]
        if leaving:
            sent_at = _now()
            rows = [
                {
                    "session": session,
                    "number": first_number + place,
                    "key": wish.key,
                    "study": asker.study,
                    "who": asker.who,
                    "state": "sent",
                    "sent_at": sent_at,
                    "reserved": wish.reserve,
                    "spent": 0,
                }
                for place, wish in enumerate(leaving)
            ]
            connection.execute(sa.insert(attempts), rows)
            self._book(connection, asker, reserved=sum(wish.reserve for wish in leaving), spent=0)
        return Admitted(
            numbers=range(first_number, first_number + count),
            wait=turn.wait,
            held=turn.held,
            learned=turn.gauge.learned,
            over_budget=over if count == affordable < len(wishes) else None,
        )

    def _affordable(self, connection: sa.Connection, asker: Asker, wishes: Sequence[Wish]) -> tuple[int, str | None]:
        """How many of the wishes every cap has room for, and which account is in the way of the next."""
        capped = [(who, cap) for who, cap in asker.caps() if cap is not None]
        if not capped or not any(wish.reserve for wish in wishes):
            return len(wishes), None
        taken = {}
        for who, _ in capped:
            taken[who] = connection.execute(_TAKEN, {"of_study": asker.study, "of_who": who}).scalar() or 0
        sum_so_far = 0
        for count, wish in enumerate(wishes):
            sum_so_far += wish.reserve
            for who, cap in capped:
                if taken[who] + sum_so_far > cap:
                    return count, who
        return len(wishes), None

    def _book(self, connection: sa.Connection, asker: Asker, *, reserved: int, spent: int) -> None:
        if not reserved and not spent:
            return
        change = {"of_study": asker.study, "more_spent": spent, "more_reserved": reserved}
        connection.execute(_BOOK, [{**change, "of_who": who} for who in sorted({"", asker.who})])

    def open_accounts(self, asker: Asker) -> None:
        """Makes the accounts a call is booked on, where they are not there yet."""
        with self._engine.begin() as connection:
            rows = [{"study": asker.study, "who": who, "spent": 0, "reserved": 0} for who in sorted({"", asker.who})]
            self._insert_new(connection, spending, rows)

    def spent(self, asker: Asker, who: str) -> int:
        """What an account has spent and reserved, in billionths of a dollar."""
        account = (spending.c.study == asker.study) & (spending.c.who == who)
        with self._reading() as connection:
            return connection.execute(sa.select(spending.c.spent + spending.c.reserved).where(account)).scalar() or 0

    # -- the shared gauge ----------------------------------------------------------------------------------------

    def _gauge(self, connection: sa.Connection, name: str) -> Gauge:
        row = connection.execute(_GAUGE, {"of_name": name}).mappings().first()
        return Gauge(**row) if row else Gauge()

    def _put_gauge(self, connection: sa.Connection, name: str, gauge: Gauge) -> None:
        values = {field.name: getattr(gauge, field.name) for field in fields(Gauge)}
        self._insert_new(connection, gauges, [{"name": name, **values}])
        connection.execute(sa.update(gauges).where(gauges.c.name == name).values(values))

    def _clock(self, connection: sa.Connection) -> float:
        """Seconds on a clock that all who share the ledger read: of this machine, or of the database server."""
        if self._engine.dialect.name == "sqlite":
            return time.monotonic()
        return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())

    # -- the database --------------------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        """Makes what is missing; ValueError for a ledger of an earlier version, which is left as it is."""
        with self._engine.begin() as connection:
            there = sa.inspect(connection).get_table_names()
            if "requests" in there and "schema" not in there:
                raise ValueError(
                    f"the ledger at {self._engine.url!r} was made by an earlier version, which asked no paid model; "
                    "move it away or set NIFT_LEDGER_URL to another place"
                )
            if self._engine.dialect.name == "postgresql":
                # Two processes that make the tables at once would collide in the catalogue.
                connection.execute(sa.text("select pg_advisory_xact_lock(7236)"))
            metadata.create_all(connection)
            self._insert_new(connection, schema, [{"version": VERSION}])
            found = connection.execute(sa.select(sa.func.max(schema.c.version))).scalar_one()
        if found != VERSION:
            raise ValueError(f"the ledger at {self._engine.url!r} has version {found}, this program needs {VERSION}")

    def _insert_new(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows; one that is there already stays."""
        if not rows:
            return
        insert: sqlite.Insert | postgresql.Insert
        insert = sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)
        connection.execute(insert.on_conflict_do_nothing(), list(rows))

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the book and keeps no writer waiting."""
        with self._engine.connect().execution_options(nift_reading=True) as connection:
            yield connection

    def reading(self) -> Any:
        """A connection for whoever reports on the book."""
        return self._reading()

    def writing(self) -> Any:
        """A transaction for whoever else keeps accounts in the book: the batch mode."""
        return self._engine.begin()


def chunks(items: Collection[T]) -> Iterator[Sequence[T]]:
    """The items in portions that fit into one statement."""
    listed = items if isinstance(items, Sequence) else list(items)
    return (listed[start : start + AT_A_TIME] for start in range(0, len(listed), AT_A_TIME))


def _end_session(connection: sa.Connection, number: int) -> int:
    """Settles a session that is over or dead; its attempts still in flight are unknown and stay reserved."""
    lost = (attempts.c.session == number) & (attempts.c.state == "sent") & attempts.c.batch.is_(None)
    found = connection.execute(sa.update(attempts).where(lost).values(state="unknown", cause="interrupted")).rowcount
    connection.execute(sa.update(requests).where(requests.c.claimed_by == number).values(claimed_by=None))
    connection.execute(sa.update(sessions).where(sessions.c.id == number).values(ended=True))
    return int(found)


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
_ENDED = sa.select(sessions.c.ended).where(sessions.c.id == sa.bindparam("of_session")).with_for_update(read=True)
_GAUGE = (
    sa.select(*(gauges.c[field.name] for field in fields(Gauge)))
    .where(gauges.c.name == sa.bindparam("of_name"))
    .with_for_update()
)
_ACCOUNT = (spending.c.study == sa.bindparam("of_study")) & (spending.c.who == sa.bindparam("of_who"))
_TAKEN = sa.select(spending.c.spent + spending.c.reserved).where(_ACCOUNT).with_for_update()
_BOOK = (
    sa.update(spending)
    .where(_ACCOUNT)
    .values(
        spent=spending.c.spent + sa.bindparam("more_spent"),
        reserved=spending.c.reserved + sa.bindparam("more_reserved"),
    )
)
_GIVE_UP = (
    sa.update(requests)
    .where(requests.c.key == sa.bindparam("of"))
    # No longer claimed: another who wants it need not wait for this session to end.
    .values(outcome=sa.bindparam("outcome"), detail=sa.bindparam("detail"), claimed_by=None)
)


def _settling(session: int, s: Settled) -> dict[str, Any]:
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
        "new_reserved": s.reserved if s.state == "unknown" else 0,
        "new_spent": s.spent,
        "new_evidence": s.evidence,
    }


def clean(text: str | None, length: int) -> str | None:
    """A text from outside as every database takes it: no longer than its column, without NUL or half characters."""
    if text is None:
        return None
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:length]


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _make_durable(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says
    cursor = connection.cursor()
    cursor.execute(f"pragma busy_timeout = {SECONDS_TO_WAIT * 1000}")
    _write_ahead(cursor)
    cursor.execute("pragma synchronous = full")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Puts the file into the mode in which one writes while others read, waiting for whoever uses it just now."""
    until = time.monotonic() + SECONDS_TO_WAIT
    while True:
        try:
            cursor.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            # Of two that change the mode at once, or while a third closes the file, one is refused without a wait.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would be refused if another wrote in between.
    reading = connection.get_execution_options().get("nift_reading")
    connection.exec_driver_sql("begin" if reading else "begin immediate")
