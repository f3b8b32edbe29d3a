"""Opening a ledger: whole, as this program needs it, and made or brought there where that is needed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from nift_assets.ledger import database, high_water, migrations
from nift_assets.ledger.high_water import Mark
from nift_assets.ledger.locks import AdvisoryLocks, FileLocks, Locks
from nift_assets.ledger.tables import VERSION, sessions


def opened(url: str | sa.URL, *, look: bool = False) -> sa.Engine:
    """The database at an SQLAlchemy address. An SQLite file is only opened if it holds what its mark says.

    Whoever only wants to `look` may open one that cannot be written. ValueError for what cannot be used, in a line.
    """
    address = sa.make_url(url)
    if address.get_backend_name() != "sqlite":
        engine = database.server_engine(address)
        _refuse_while_a_server_is_asked_through(engine)
        migrations.make_tables(engine, "")
        return engine
    file = Path(address.database or "")
    if not writable(file):
        return _opened_to_read(file, look=look)
    mark = Mark(file)
    found = high_water.checked(file, mark)
    if found is None or found.version != VERSION:
        _make(file, mark, found)
    elif found.mark is not None and (known := mark.read()) and known.commits < found.mark.commits:
        mark.write(found.mark)
    return database.file_engine(file, mark=mark)


def writable(file: Path) -> bool:
    """Whether an SQLite file can be written, and what is made beside it."""
    folder = file.absolute().parent
    return not folder.exists() or (os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK)))


def refuse_to_write(file: Path) -> None:
    """ValueError for an SQLite file that cannot be written."""
    if not writable(file):
        raise ValueError(f"the ledger {file} cannot be written; give its file and its folder to whoever runs this")


def refuse_while_asking(file: Path) -> None:
    """ValueError for a ledger that cannot be written, or while a run is asking through it, as far as it can be read."""
    refuse_to_write(file)
    try:
        with closing(high_water.connect_to_read(file)) as connection:
            rows = connection.execute("select id, writer from sessions where not ended").fetchall()
    except sqlite3.Error:
        return
    _refuse_if_alive(FileLocks(Path(f"{file}.locks")), rows)


def _refuse_while_a_server_is_asked_through(engine: sa.Engine) -> None:
    """ValueError for a ledger whose tables are about to be made anew while a run is asking through it."""
    with engine.connect() as connection:
        if migrations.version_of(connection) not in migrations.MIGRATED:
            return
        query = sa.select(sessions.c.id, sessions.c.writer).where(~sessions.c.ended)
        rows = [(number, writer) for number, writer in connection.execute(query)]
    _refuse_if_alive(AdvisoryLocks(engine), rows)


def _refuse_if_alive(locks: Locks, found: Sequence[tuple[int, str]]) -> None:
    busy = [writer for number, writer in found if not locks.free(f"session {number}")]
    if busy:
        raise ValueError(f"a run is asking as {busy[0]} right now; wait until it ends, or end it")


def _opened_to_read(file: Path, *, look: bool) -> sa.Engine:
    if not look:
        refuse_to_write(file)
    found = high_water.checked(file, Mark(file))
    if found is None or found.version != VERSION:
        raise ValueError(f"the ledger {file} was made by an earlier version; look at it once where it can be written")
    return database.engine_to_read(file)


def _make(file: Path, mark: Mark, found: high_water.Found | None) -> None:
    """Makes a new ledger, or brings one of an earlier version to this one; its mark comes first, at 0."""
    if found is not None:
        migrations.refuse(sa.URL.create("sqlite", database=str(file)), found.version)
        refuse_while_asking(file)
        migrations.keep_as_it_was(file, found.version)
    engine = database.file_engine(file)
    try:
        migrations.make_tables(engine, mark.make().ledger)
        if found is not None:
            migrations.give_back_space(engine)
    finally:
        engine.dispose()
