"""Bringing a ledger of an earlier version to today's, in place: everything that was paid is still there."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger import high_water as marks
from nift_assets.ledger import question_counts, stored_answers
from nift_assets.ledger.database import AT_A_TIME, execute_many, insert_from, insert_new
from nift_assets.ledger.packing import packed
from nift_assets.ledger.tables import (
    VERSION,
    answer_digest,
    answers,
    attempts,
    batches,
    high_water,
    limitless_number,
    metadata,
    requests,
    schema,
    spending,
    wanted,
)
from nift_assets.protocol.request import restored
from nift_training import artifacts

log = logging.getLogger(__name__)

# The versions this program can bring to its own.
MIGRATED = (2, 3)
# Two processes that make or change tables at once would collide in a server's catalogue.
MAKING = 7236
# Counted where they are written, so that whatever writes them is counted.
COUNTERS = (
    "create trigger if not exists answers_written after insert on answers "
    "begin update high_water set answers = answers + 1; end",
    "create trigger if not exists answers_removed after delete on answers "
    "begin update high_water set answers = answers - 1; end",
)
# What lies beside the tables of version 3 that are made anew, and would lie in the way of today's.
LEFT_OVER = {
    "trigger": ("answers_written", "answers_removed"),
    "index": ("ix_requests_claimed_by", "ix_requests_in_batch", "requests_limitless", "ix_attempts_batch"),
}


def make_tables(engine: sa.Engine, ledger: str) -> None:
    """Makes what is missing, and brings what is of an earlier version to this one; `ledger` is an SQLite file's name.

    One transaction. ValueError for a ledger that this program cannot read, which is left as it is.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"select pg_advisory_xact_lock({MAKING})"))
        version = version_of(connection)
        if version == VERSION:
            question_counts.gather(connection)
            return
        if version is not None:
            refuse(engine.url, version)
        before = _set_aside(connection, version) if version is not None else None
        metadata.create_all(connection)
        insert_new(connection, schema, [{"version": VERSION}])
        if before:
            _take_over(connection, before)
        if connection.dialect.name == "sqlite":
            there = connection.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one()
            if not connection.execute(sa.select(high_water)).first():
                insert_new(connection, high_water, [{"ledger": ledger, "commits": 0, "answers": there}])
            for counter in COUNTERS:
                connection.execute(sa.text(counter))
        question_counts.count_anew(connection)
        question_counts.create_triggers(connection)


def give_back_space(engine: sa.Engine) -> None:
    """Makes an SQLite file as small as what is in it. Where there is no room for that, or somebody is reading, the
    pages are used again as the ledger grows."""
    with suppress(sqlite3.OperationalError), engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("pragma busy_timeout = 0")
        driver.execute("vacuum")


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


@dataclass(frozen=True, kw_only=True)
class _Before:
    """The tables of an earlier version that are made anew, under the names they have until then."""

    version: int
    requests: sa.Table
    wanted: sa.Table
    answers: sa.Table


def _set_aside(connection: sa.Connection, version: int) -> _Before:
    """Gives the tables that are made anew other names, and adds what is missing to those that stay."""
    log.warning("the ledger is brought from version %s to %s, which may take minutes", version, VERSION)
    for kind, names in LEFT_OVER.items():
        for name in names if kind == "index" or connection.dialect.name == "sqlite" else ():
            connection.exec_driver_sql(f"drop {kind} if exists {name}")
    aside = {}
    for name in ("requests", "wanted", "answers"):
        connection.exec_driver_sql(f"alter table {name} rename to {name}_before")
        aside[name] = sa.Table(f"{name}_before", sa.MetaData(), autoload_with=connection)
    there = {
        name: {column["name"] for column in sa.inspect(connection).get_columns(name)}
        for name in ("batches", "spending")
    }
    for column in (batches.c.listed_until, spending.c.sent, spending.c.input_tokens, spending.c.output_tokens):
        if column.name not in there[column.table.name]:
            kind = column.type.compile(connection.dialect)
            needed = " not null default 0" if column.server_default is not None else ""
            connection.exec_driver_sql(f"alter table {column.table.name} add column {column.name} {kind}{needed}")
    return _Before(version=version, **aside)


def _take_over(connection: sa.Connection, before: _Before) -> None:
    """Puts all that was there into today's tables, and removes those of before."""
    for index in attempts.indexes:
        index.create(connection, checkfirst=True)
    columns = [column.name for column in requests.columns if column.name not in ("number", "limitless")]
    asked = sa.select(*(before.requests.c[name] for name in columns))
    connection.execute(sa.insert(requests).from_select(columns, asked))
    _fill_limitless(connection, before)
    whose = sa.select(requests.c.number, before.wanted.c.study, before.wanted.c.who)
    insert_from(connection, wanted, whose.join(before.wanted, before.wanted.c.key == requests.c.key))
    _pack_answers(connection, before)
    _sum_up(connection)
    for table in (before.requests, before.wanted, before.answers):
        table.drop(connection)


def _fill_limitless(connection: sa.Connection, before: _Before) -> None:
    """What finds a question without its limit again: version 2 worked it out from the body each time."""
    fill = sa.update(requests).where(requests.c.number == sa.bindparam("of")).values(limitless=sa.bindparam("made"))
    known = before.requests.c.limitless if before.version > 2 else requests.c.body
    query = sa.select(requests.c.number, known.label("known"))
    if before.version > 2:
        query = query.join(before.requests, before.requests.c.key == requests.c.key).where(known.is_not(None))
    for rows in _portions(connection, query, requests.c.number, 0):
        keys = {row.number: row.known if before.version > 2 else _limitless_key(row.known) for row in rows}
        made = [{"of": number, "made": limitless_number(key)} for number, key in keys.items() if key]
        if made:
            execute_many(connection, fill, made)


def _limitless_key(body: str) -> str | None:
    request = restored(body)
    return request.limitless_key if request.output_limit else None


def _pack_answers(connection: sa.Connection, before: _Before) -> None:
    """Every answer as it is stored today, byte for byte what came. One that was damaged stays so, and is found so."""
    old = before.answers
    query = sa.select(old, requests.c.provider).outerjoin(requests, requests.c.key == old.c.key)
    for rows in _portions(connection, query, old.c.key, ""):
        insert_new(connection, answers, [_packed_row(row) for row in rows])


def _packed_row(row: Any) -> dict[str, Any]:
    plain = bytes(row.body)
    headers, body = packed(row.headers.encode()), packed(plain)
    stored = bytes(row.digest) if row._mapping.get("digest") is not None else None
    is_whole = stored is None or stored == _digest_of_version_3(row.key, row.http_status, row.headers, plain)
    return {
        "key": row.key,
        "session": row.session,
        "number": row.number,
        "http_status": row.http_status,
        "status": stored_answers.status(row.provider, row.key, row.http_status, plain),
        "headers": headers,
        "body": body,
        "answered_at": row.answered_at,
        "digest": answer_digest(row.key, row.http_status, headers, body) if is_whole else stored,
        "taken_from": row._mapping.get("taken_from"),
    }


def _digest_of_version_3(key: str, http_status: int, headers: str, body: bytes) -> bytes:
    digest = hashlib.sha256(f"{key}\0{http_status}\0{headers}\0".encode())
    digest.update(body)
    return digest.digest()


def _sum_up(connection: sa.Connection) -> None:
    """What each account has sent, and the tokens that came back, from its attempts."""
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    counted = (
        sa.func.count().label("sent"),
        sa.func.sum(attempts.c.input_tokens).label("input_tokens"),
        sa.func.sum(attempts.c.output_tokens).label("output_tokens"),
    )
    by_account = sa.select(attempts.c.study, attempts.c.who, *counted).group_by(attempts.c.study, attempts.c.who)
    for row in connection.execute(by_account):
        for who in {row.who, ""}:
            sums[row.study, who].update({name: int(row._mapping[name] or 0) for name in _SUMMED})
    accounts = [{"study": study, "who": who, "spent": 0, "reserved": 0} for study, who in sums]
    insert_new(connection, spending, accounts)
    for (study, who), total in sums.items():
        account = (spending.c.study == study) & (spending.c.who == who)
        connection.execute(sa.update(spending).where(account).values({name: total[name] for name in _SUMMED}))


_SUMMED = ("sent", "input_tokens", "output_tokens")


def _portions(
    connection: sa.Connection, query: sa.Select[Any], key: sa.ColumnElement[Any], after: Any
) -> Iterator[Sequence[Any]]:
    """All rows in the order of their keys, a portion at a time."""
    query = query.where(key > sa.bindparam("after")).order_by(key).limit(AT_A_TIME)
    while rows := connection.execute(query, {"after": after}).all():
        yield rows
        after = rows[-1]._mapping[key]
