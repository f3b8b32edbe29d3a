"""Bringing a ledger of an earlier version to today's, in place: everything that was paid is still there."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger import high_water as marks
from nift_assets.ledger.database import AT_A_TIME, insert_new
from nift_assets.ledger.tables import VERSION, answer_digest, answers, batches, high_water, metadata, requests, schema
from nift_assets.protocol.request import restored
from nift_training import artifacts

log = logging.getLogger(__name__)

# The versions this program can bring to its own.
MIGRATED = (2,)
# Version 2 had all columns but these.
NEW_COLUMNS = (requests.c.limitless, answers.c.digest, answers.c.taken_from, batches.c.listed_until)
# Two processes that make or change tables at once would collide in a server's catalogue.
MAKING = 7236
# Counted where they are written, so that whatever writes them is counted.
COUNTERS = (
    "create trigger if not exists answers_written after insert on answers "
    "begin update high_water set answers = answers + 1; end",
    "create trigger if not exists answers_removed after delete on answers "
    "begin update high_water set answers = answers - 1; end",
)


def make_tables(engine: sa.Engine, ledger: str) -> None:
    """Makes what is missing, and brings what is of an earlier version to this one; `ledger` is an SQLite file's name.

    One transaction. ValueError for a ledger that this program cannot read, which is left as it is.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"select pg_advisory_xact_lock({MAKING})"))
        version = version_of(connection)
        if version is not None:
            refuse(engine.url, version)
        if version in MIGRATED:
            log.warning("the ledger is brought from version %s to %s, which may take minutes", version, VERSION)
            _add_columns(connection)
        metadata.create_all(connection)
        insert_new(connection, schema, [{"version": VERSION}])
        if version in MIGRATED:
            _fill_columns(connection)
        if connection.dialect.name == "sqlite":
            there = connection.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one()
            if not connection.execute(sa.select(high_water)).first():
                insert_new(connection, high_water, [{"ledger": ledger, "commits": 0, "answers": there}])
            for counter in COUNTERS:
                connection.execute(sa.text(counter))


def refuse(url: sa.URL, version: int) -> None:
    """ValueError for a version that this program can neither use nor bring to its own."""
    if version in (VERSION, *MIGRATED):
        return
    if version > VERSION:
        raise ValueError(f"the ledger at {url!r} has version {version}, this program needs {VERSION}; use a newer one")
    raise ValueError(
        f"the ledger at {url!r} was made by an earlier version, which asked no paid model; move it away or set "
        "NIFT_LEDGER_URL to another place"
    )


def version_of(connection: sa.Connection) -> int | None:
    """The version of a ledger, 0 for one from before there were versions; None for a new one."""
    names = sa.inspect(connection).get_table_names()
    if "schema" not in names:
        return 0 if "requests" in names else None
    return connection.execute(sa.select(sa.func.max(schema.c.version))).scalar()


def keep_as_it_was(file: Path, version: int) -> Path:
    """A copy of an SQLite ledger beside it, from before it is changed."""
    kept = file.with_name(f"{file.name}.version-{version}")
    if not kept.exists():
        copy(file, kept)
    return kept


def copy(file: Path, to: Path) -> None:
    """A consistent copy of an SQLite file, while others use it; one file, there once it is whole."""
    partial = to.with_name(f"{to.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(marks.connect_to_read(file)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
            # What is copied is whole by itself, without a `-wal`.
            target.execute("pragma journal_mode = delete")
        artifacts.sync(partial)
        partial.replace(to)
    except sqlite3.Error as error:
        if marks.is_damage(error):
            raise marks.DamagedLedger(marks.damaged(file, str(error))) from None
        raise ValueError(
            f"{file} cannot be copied to {to} ({error}); free some space there, or see to its folder"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    artifacts.sync(to.parent)


def _add_columns(connection: sa.Connection) -> None:
    quoted = connection.dialect.identifier_preparer
    there = {table: {column["name"] for column in sa.inspect(connection).get_columns(table)} for table in _TABLES}
    for column in NEW_COLUMNS:
        table = column.table.name
        if column.name not in there[table]:
            kind = column.type.compile(connection.dialect)
            added = f"alter table {quoted.quote(table)} add column {quoted.quote(column.name)} {kind}"
            connection.execute(sa.text(added))
    for index in requests.indexes:
        if requests.c.limitless.name in index.columns:
            index.create(connection, checkfirst=True)


_TABLES = sorted({column.table.name for column in NEW_COLUMNS})


def _fill_columns(connection: sa.Connection) -> None:
    """What is worked out from the rows: the key without a limit, and the digest of an answer."""
    of = sa.bindparam("of", type_=sa.String)
    fill = sa.update(requests).where(requests.c.key == of).values(limitless=sa.bindparam("made"))
    for rows in _portions(connection, requests.c.key, requests.c.body):
        limited = ((key, request) for key, body in rows if (request := restored(body)).output_limit)
        if made := [{"of": key, "made": request.limitless_key} for key, request in limited]:
            connection.execute(fill, made)
    fill = sa.update(answers).where(answers.c.key == of).values(digest=sa.bindparam("made"))
    for rows in _portions(connection, answers.c.key, answers.c.http_status, answers.c.headers, answers.c.body):
        made = [
            {"of": key, "made": answer_digest(key, status, headers, bytes(body))} for key, status, headers, body in rows
        ]
        connection.execute(fill, made)


def _portions(connection: sa.Connection, key: sa.Column[str], *columns: sa.Column[Any]) -> Iterator[Sequence[Any]]:
    """All rows in the order of their keys, a portion at a time."""
    query = sa.select(key, *columns).where(key > sa.bindparam("after")).order_by(key).limit(AT_A_TIME)
    after = ""
    while rows := connection.execute(query, {"after": after}).all():
        yield rows
        after = rows[-1][0]
