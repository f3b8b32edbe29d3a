"""The ledger's database: an SQLite file that survives a crash at any moment, or PostgreSQL.

What differs between the two stands here, and nothing here knows what the tables mean.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nift_assets.ledger.tables import VERSION, metadata, schema

T = TypeVar("T")
P = ParamSpec("P")

# SQLite refuses a statement with more than 32,766 values.
AT_A_TIME = 500
SECONDS_TO_WAIT = 60
SECONDS_BETWEEN_TRIES = 0.2
# What PostgreSQL says when it stops, starts or has lost a connection; nothing where it cannot be reached.
AWAY = ("08", "57P")


def engine(url: str) -> sa.Engine:
    """The database at an SQLAlchemy address; an SQLite file is in WAL mode with full synchronisation."""
    # A server that restarted has closed its connections: each is tried before it is used.
    created = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if created.dialect.name == "sqlite":
        sa.event.listen(created, "connect", _make_durable)
        sa.event.listen(created, "begin", _begin)
    return created


def make_tables(engine: sa.Engine) -> None:
    """Makes what is missing; ValueError for a ledger of an earlier version, which is left as it is."""
    with engine.begin() as connection:
        names = sa.inspect(connection).get_table_names()
        if "requests" in names and "schema" not in names:
            raise ValueError(
                f"the ledger at {engine.url!r} was made by an earlier version, which asked no paid model; "
                "move it away or set NIFT_LEDGER_URL to another place"
            )
        if engine.dialect.name == "postgresql":
            # Two processes that make the tables at once would collide in the catalogue.
            connection.execute(sa.text("select pg_advisory_xact_lock(7236)"))
        metadata.create_all(connection)
        insert_new(connection, schema, [{"version": VERSION}])
        version = connection.execute(sa.select(sa.func.max(schema.c.version))).scalar_one()
    if version != VERSION:
        raise ValueError(f"the ledger at {engine.url!r} has version {version}, this program needs {VERSION}")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that sees one state of the database and keeps no writer waiting."""
    with engine.connect().execution_options(nift_reading=True) as connection:
        yield connection


def outlasting(work: Callable[P, T]) -> Callable[P, T]:
    """Work on the database that is begun again while a server restarts; it must be such that it can be done twice."""

    @functools.wraps(work)
    def tried(*arguments: P.args, **named: P.kwargs) -> T:
        until = time.monotonic() + SECONDS_TO_WAIT
        while True:
            try:
                return work(*arguments, **named)
            except sa.exc.DBAPIError as error:
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
    """Inserts rows; one that is there already stays."""
    if not rows:
        return
    insert: sqlite.Insert | postgresql.Insert
    insert = sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
    connection.execute(insert.on_conflict_do_nothing(), list(rows))


def clock(connection: sa.Connection) -> float:
    """Seconds on a clock that all who share the ledger read: of this machine, or of the database server."""
    if connection.dialect.name == "sqlite":
        return time.monotonic()
    return float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())


def chunks(items: Collection[T]) -> Iterator[Sequence[T]]:
    """The items in portions that fit into one statement."""
    listed = items if isinstance(items, Sequence) else list(items)
    return (listed[start : start + AT_A_TIME] for start in range(0, len(listed), AT_A_TIME))


def clean(text: str | None, length: int) -> str | None:
    """A text from outside as every database takes it: no longer than its column, without NUL or half characters."""
    if text is None:
        return None
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:length]


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
    only_reads = connection.get_execution_options().get("nift_reading")
    connection.exec_driver_sql("begin" if only_reads else "begin immediate")
