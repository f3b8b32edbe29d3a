"""Opening a ledger: whole, as this program needs it, and made or brought there where that is needed."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from nift_assets.ledger import database, high_water, migrations
from nift_assets.ledger.high_water import Mark
from nift_assets.ledger.tables import VERSION


def opened(url: str | sa.URL, *, look: bool = False) -> sa.Engine:
    """The database at an SQLAlchemy address. An SQLite file is only opened if it holds what its mark says.

    Whoever only wants to `look` may open one that cannot be written. ValueError for what cannot be used, in a line.
    """
    address = sa.make_url(url)
    if address.get_backend_name() != "sqlite":
        engine = database.server_engine(address)
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
        migrations.keep_as_it_was(file, found.version)
    engine = database.file_engine(file)
    try:
        migrations.make_tables(engine, mark.make().ledger)
    finally:
        engine.dispose()
