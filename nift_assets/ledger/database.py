"""The ledger's database: an SQLite file that survives a crash at any moment, or PostgreSQL.

What differs between the two stands here, and nothing here knows what the tables mean.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nift_assets.ledger import high_water
from nift_assets.ledger.high_water import DamagedLedger, HighWater, Mark

T = TypeVar("T")
P = ParamSpec("P")

# SQLite refuses a statement with more than 32,766 values.
AT_A_TIME = 500
# What SQLite keeps of a file in memory: the upper pages of its indexes, and what one transaction writes.
CACHE_KIB = 128 * 1024
# A `-wal` of so many pages, 100 MB, goes into the file at once. Keys come in no order, so each new question is on a
# page of its own in their index; the more come together, the more share one.
CHECKPOINT_PAGES = 25_000
SECONDS_TO_WAIT = 60
SECONDS_BETWEEN_TRIES = 0.2
# Who has better to do than to wait for another writer says so by this option of its engine: see `hurried`.
HURRY, HURRIED_SECONDS = "nift_hurry", 5
# What PostgreSQL says when it stops, starts or has lost a connection; nothing where it cannot be reached.
AWAY = ("08", "57P")


def server_engine(address: sa.URL) -> sa.Engine:
    """A database server."""
    # One that restarted has closed its connections: each is tried before it is used.
    return sa.create_engine(address, pool_pre_ping=True)


def file_engine(file: Path, *, mark: Mark | None = None) -> sa.Engine:
    """An SQLite file in WAL mode with full synchronisation; each commit raises its `mark`."""
    known = mark.read() if mark else None

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, check_same_thread=False, factory=_MarkedConnection)
        if mark and known:
            connection.follow(mark, known.ledger)
        return connection

    return _engine(file, connect, _make_durable)


def engine_to_read(file: Path) -> sa.Engine:
    """An SQLite file that is read and never written, nor anything beside it."""
    return _engine(file, lambda: high_water.connect_to_read(file), _make_patient)


def _engine(file: Path, connect: Callable[[], sqlite3.Connection], prepare: Callable[[Any, Any], None]) -> sa.Engine:
    # The address is told to nobody but whoever asks the engine: a path may hold what an address cannot.
    created = sa.create_engine(sa.URL.create("sqlite", database=str(file)), creator=connect)
    sa.event.listen(created, "connect", prepare)
    sa.event.listen(created, "begin", _begin)
    sa.event.listen(created, "handle_error", _name_damage)
    return created


class _MarkedConnection(sqlite3.Connection):
    """A connection that counts its commits in the database, and writes the count to the mark behind each."""

    _mark: tuple[Mark, str] | None = None
    _changes = 0

    def follow(self, mark: Mark, ledger: str) -> None:
        self._mark = mark, ledger

    def commit(self) -> None:
        if self._mark is None or self.total_changes == self._changes:
            super().commit()
            return
        ((commits,),) = self.execute("update high_water set commits = commits + 1 returning commits").fetchall()
        super().commit()
        self._changes = self.total_changes
        mark, ledger = self._mark
        mark.write(HighWater(ledger, commits))

    def rollback(self) -> None:
        super().rollback()
        self._changes = self.total_changes


def hurried(engine: sa.Engine) -> sa.Engine:
    """The same database for who does not wait as long for other writers of an SQLite file."""
    return engine.execution_options(**{HURRY: True})


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that sees one state of the database and keeps no writer waiting."""
    # A server by default shows each statement what was committed just before: an attempt as answered, and of a moment
    # earlier that there is no answer.
    one_state = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with engine.connect().execution_options(nift_reading=True, **one_state) as connection:
        yield connection


def outlasting(work: Callable[P, T]) -> Callable[P, T]:
    """Work on the database that is begun again while a server restarts; it must be such that it can be done twice."""

    @functools.wraps(work)
    def tried(*arguments: P.args, **named: P.kwargs) -> T:
        until = None  # counted from the first failure: the work may have taken long before
        while True:
            try:
                return work(*arguments, **named)
            except sa.exc.DBAPIError as error:
                until = until or time.monotonic() + SECONDS_TO_WAIT
                if not _is_away(error) or time.monotonic() > until:
                    raise
            time.sleep(SECONDS_BETWEEN_TRIES)

    return tried


def _is_away(error: sa.exc.DBAPIError) -> bool:
    """Whether it is the server that is not there, and not what was asked of it that is wrong."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, sa.exc.OperationalError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return state is None or state.startswith(AWAY)


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows, which have the same columns; one that is there already stays."""
    if rows:
        execute_many(connection, _insert_new(table, connection.dialect.name), rows)


def insert_from(connection: sa.Connection, table: sa.Table, rows: sa.Select[Any]) -> None:
    """Inserts what is selected, whose columns are the table's; a row that is there already stays."""
    columns = [column.name for column in table.columns]
    connection.execute(_insert(table, connection.dialect.name).from_select(columns, rows).on_conflict_do_nothing())


@functools.cache
def _insert_new(table: sa.Table, dialect: str) -> sa.Insert:
    # Inline: nobody asks for the numbers that a server gives the rows.
    return _insert(table, dialect).on_conflict_do_nothing().inline()


def _insert(table: sa.Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def execute_many(
    connection: sa.Connection, statement: sa.Insert | sa.Update, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Executes a statement that lives as long as its module, once for each row.

    SQLAlchemy works a row out again for each execution, which costs more than the database does; here the driver is
    handed the rows as they are. No column of the statement may have a default or a type of SQLAlchemy's own making.
    """
    text, names = _compiled(statement, connection.dialect, tuple(rows[0]))
    if names is None:
        connection.exec_driver_sql(text, [dict(row) for row in rows])
    else:
        connection.exec_driver_sql(text, [tuple(map(row.__getitem__, names)) for row in rows])


@functools.lru_cache(maxsize=256)
def _compiled(
    statement: sa.Insert | sa.Update, dialect: sa.Dialect, columns: tuple[str, ...]
) -> tuple[str, Sequence[str] | None]:
    """The statement as the driver takes it, and the names of its values in their order; None where they are named."""
    # The values of an update are bound by it, those of an insert are its columns.
    compiled = statement.compile(
        dialect=dialect, column_keys=list(columns) if isinstance(statement, sa.Insert) else None
    )
    return str(compiled), getattr(compiled, "positiontup", None)


def among(
    connection: sa.Connection, column: sa.Column[Any], values: Collection[str] | Collection[int]
) -> sa.ColumnElement[bool]:
    """Whether a column has one of the values, which travel as one: SQLAlchemy works each out that travels alone."""
    if connection.dialect.name == "sqlite":
        listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(sa.select(listed.c.value))
    return column == sa.any_(sa.literal(list(values), sa.ARRAY(column.type)))


def clock(connection: sa.Connection) -> float:
    """Seconds on a clock that all who share the ledger read: of this machine, or of the database server."""
    if connection.dialect.name == "sqlite":
        return time.monotonic()
    return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())


def chunks(items: Collection[T], size: int = AT_A_TIME) -> Iterator[Sequence[T]]:
    """The items in portions, by default such that fit into one statement."""
    listed = items if isinstance(items, Sequence) else list(items)
    return (listed[start : start + size] for start in range(0, len(listed), size))


def clean(text: str | None, length: int) -> str | None:
    """A text from outside as every database takes it: no longer than its column, without NUL or half characters."""
    if text is None:
        return None
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:length]


def _name_damage(context: sa.engine.ExceptionContext) -> None:
    """Says which file is damaged, and what to do; SQLite says neither."""
    error = context.original_exception
    if high_water.is_damage(error):
        file = context.engine.url.database if context.engine else None
        raise DamagedLedger(high_water.damaged(Path(file or ""), str(error))) from None


def _make_patient(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says
    connection.execute(f"pragma busy_timeout = {SECONDS_TO_WAIT * 1000}")


def _make_durable(connection: sqlite3.Connection, _: Any) -> None:
    _make_patient(connection, _)
    cursor = connection.cursor()
    _write_ahead(cursor)
    cursor.execute("pragma synchronous = full")
    cursor.execute(f"pragma cache_size = -{CACHE_KIB}")
    cursor.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
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
            if high_water.code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    seconds = min(HURRIED_SECONDS, SECONDS_TO_WAIT) if options.get(HURRY) else SECONDS_TO_WAIT
    connection.exec_driver_sql(f"pragma busy_timeout = {1000 * seconds}")
    # A transaction that reads first and writes later would be refused if another wrote in between.
    only_reads = options.get("nift_reading")
    connection.exec_driver_sql("begin" if only_reads else "begin immediate")
