"""A database of which every call may fail, succeed unheard, or hang: real SQLite, behind a driver that misbehaves.

In a world with a database server it has the server's locks, which go with their connections, and restarts.
"""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger import database
from nift_assets.ledger.high_water import Mark
from tests.ledger.simulation.world import PROCESS, Crashed, Process, World

CLOSED = "the server closed the connection"
BUSY = re.compile(r"pragma busy_timeout = (\d+)")


def engine(world: World, file: Path, mark: Mark | None = None) -> sa.Engine:
    """The engine that `database.file_engine` would make, on the misbehaving driver."""
    known = mark.read() if mark else None

    def connect() -> Connection:
        connection = sqlite3.connect(file, factory=Connection, isolation_level=None, timeout=0)
        connection.begin(world, PROCESS.get())
        if mark and known:
            connection.follow(mark, known.ledger)
        try:
            connection.calls("connect")
        except BaseException:
            connection.close()
            raise
        return connection

    address = sa.URL.create("sqlite", database=str(file))
    created = sa.create_engine(address, creator=connect, pool_pre_ping=world.is_server)
    sa.event.listen(created, "connect", database._make_durable)
    sa.event.listen(created, "begin", database._begin)
    sa.event.listen(created, "handle_error", _is_disconnect)
    return created


def _is_disconnect(context: sa.ExceptionContext) -> None:
    if CLOSED in str(context.original_exception):
        context.is_disconnect = True


class Connection(database._MarkedConnection):
    """A connection to the simulated database. `pending` is a transaction that has begun and has done nothing yet."""

    def begin(self, world: World, process: Process) -> None:
        self.world, self.process = world, process
        self.was_cut, self.pending, self.patience, self._signal = False, "", 60.0, -1
        self.is_committing = False
        process.connections.append(self)
        world.connections.append(self)
        self.create_function("pg_try_advisory_lock", 1, self._lock)
        self.create_function("pg_advisory_unlock", 1, self._unlock)

    @property
    def closed(self) -> bool:
        return False

    def fileno(self) -> int:
        """Readable when the server has closed the connection."""
        if self._signal < 0:
            self._signal = os.eventfd(int(self.was_cut), os.EFD_NONBLOCK)
        return self._signal

    def cut(self) -> None:
        """Ends the connection from the other side."""
        if not self.was_cut:
            self.was_cut, self.pending = True, ""
            sqlite3.Connection.rollback(self)
            self._let_go()
            if self._signal >= 0:
                os.eventfd_write(self._signal, 1)

    def calls(self, what: str) -> bool:
        """One call of the database: raises where it fails; False where it goes through and nobody hears of it."""
        world = self.world
        self.process.step(what)
        if self.was_cut:
            self._fail(CLOSED)
        if world.now() < world.down_until and what != "statement":
            if world.happens(0.03):  # who waits for what does not come is ended by somebody
                self.process.kill(what)
                raise Crashed
            if world.is_server:
                self._fail("the server cannot be reached: the server closed the connection")
            world.block(min(self.patience, world.down_until - world.now()))
            if world.now() < world.down_until:
                self._fail("database is locked")
        if what in ("begin", "commit") and world.happens(0.004):
            self._goes_down()
        if world.happens(0.006):
            seconds = world.chance.uniform(0.1, 30)
            world.note(self.process.name, f"{what} hangs for {seconds:.1f} s")
            world.is_troubled()
            world.block(seconds)
            world.is_troubled()
        if world.happens(0.01):
            world.note(self.process.name, f"{what} fails")
            if world.is_server:
                self.cut()
            self._fail(CLOSED if world.is_server else "disk I/O error")
        if what == "commit" and world.happens(0.03):
            world.note(self.process.name, "commit goes through unheard")
            world.counts["unheard"] += 1
            return False
        return True

    def _goes_down(self) -> None:
        world = self.world
        longest = 40 if world.is_server else world.chance.choice((20, 60, 250, 900))
        seconds = world.chance.uniform(0.5, longest)
        world.down_until = world.now() + seconds
        world.counts["outages"] += 1
        world.note("*", f"the database is away for {seconds:.0f} s")
        if world.is_server:
            world.restarted_at = world.now()
            for connection in list(world.connections):
                connection.cut()
            self._fail(CLOSED)

    def _fail(self, why: str) -> None:
        self.world.is_troubled()
        raise sqlite3.OperationalError(why)

    # -- what SQLAlchemy calls

    def cursor(self, factory: Any = None) -> sqlite3.Cursor:
        return super().cursor(factory or Cursor)

    def commit(self) -> None:
        if self.pending or not self.in_transaction:
            self.pending = ""
            return
        try:
            is_heard = self.calls("commit")
        except BaseException:
            super().rollback()
            raise
        self.is_committing = True
        try:
            super().commit()
        finally:
            self.is_committing = False
        self.world.checks.after_commit(self.process)
        if not is_heard:
            if self.world.is_server:
                self.cut()
            self._fail(CLOSED if self.world.is_server else "disk I/O error")
        self.process.step("after a commit")

    def rollback(self) -> None:
        self.pending = ""
        if not self.was_cut:
            super().rollback()

    def close(self) -> None:
        self._let_go()
        self.was_cut = True
        if self in self.world.connections:
            self.world.connections.remove(self)
        if self._signal >= 0:
            os.close(self._signal)
            self._signal = -1
        super().close()

    # -- the server's locks

    def _lock(self, number: int) -> int:
        return int(self.world.advisory_locks.setdefault(number, self) is self)

    def _unlock(self, number: int) -> int:
        if self.world.advisory_locks.get(number) is not self:
            return 0
        del self.world.advisory_locks[number]
        return 1

    def _let_go(self) -> None:
        locks = self.world.advisory_locks
        for number in [number for number, holder in locks.items() if holder is self]:
            del locks[number]


class Cursor(sqlite3.Cursor):
    """A cursor that begins a transaction on the disk only when it writes or reads a table: whoever holds a lock of the
    server holds no transaction."""

    connection: Connection

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        connection, lower = self.connection, statement.lower()
        if connection.is_committing:
            return super().execute(statement, parameters)
        if lower.startswith("begin"):
            connection.calls("begin")
            connection.pending = statement
            return self
        if found := BUSY.match(lower):
            connection.patience = int(found[1]) / 1000
            return self
        if not lower.startswith("pragma"):
            connection.calls("statement")
        self._begin(lower)
        return super().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Any) -> Any:
        self.connection.calls("statement")
        self._begin(statement.lower())
        return super().executemany(statement, parameters)

    def _begin(self, statement: str) -> None:
        if self.connection.pending and "advisory" not in statement and statement != "select 1":
            super().execute(self.connection.pending)
            self.connection.pending = ""
