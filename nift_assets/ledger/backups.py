"""Copies of an SQLite ledger, and what is done with one that holds less than it did."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger import database, high_water, migrations, opening, question_counts, stored_answers
from nift_assets.ledger.high_water import DamagedLedger, HighWater, Mark
from nift_assets.ledger.tables import MARKED, VERSION, answers, attempts, requests
from nift_assets.ledger.tables import high_water as high_waters
from nift_training import artifacts

# What SQLite says of a damaged file is told, but not all of it.
MOST_TOLD = 5
# An answer that was stored and is not there: its attempt says so, and its question may be asked again.
ANSWER_LOST = "answer_lost"


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """What is whole in a ledger: how many answers it holds, the keys of those that are not what was stored (by their
    places), how many were stored and are gone, and what else is wrong, in words."""

    answers: int
    damaged: Mapping[int, str] = field(default_factory=dict)
    lost: int = 0
    wrong: Sequence[str] = ()

    @property
    def whole(self) -> bool:
        return not (self.damaged or self.lost or self.wrong)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a ledger holds now, and where the one before it lies, if there was any."""

    answers: int
    replaced: Path | None


def backup(url: str | sa.URL, to: Path) -> Path:
    """A copy of the ledger with a mark of its own, while others use it; `to` is a new file, or a folder for one.

    ValueError for a ledger that is not whole.
    """
    file = database_file(url)
    if to.is_dir():
        to = to / f"{file.stem}-{_stamp()}{file.suffix}"
    if to.exists():
        raise ValueError(f"{to} is there already; give a name that is free, or a folder")
    if _found(file) is None:
        raise ValueError(f"there is no ledger at {file} to copy")
    made = to.with_name(f"{to.name}.unchecked")
    migrations.copy(file, made)
    try:
        checkup = _check(made)
        if not checkup.whole:
            raise DamagedLedger(high_water.damaged(file, _in_words(checkup)))
        found = high_water.look(made)
        assert found is not None
        if found.mark:
            Mark(to).put(found.mark)
        made.replace(to)
        artifacts.sync(to.parent)
    finally:
        made.unlink(missing_ok=True)
    return to


def restore(url: str | sa.URL, source: Path) -> Restored:
    """Puts a backup in the place of the ledger, which is kept beside it under another name.

    Killed at any moment, it leaves the ledger of before, the backup, or one that is refused until it is run again.
    """
    file = database_file(url)
    if not source.is_file():
        raise ValueError(f"there is no backup at {source}")
    known = Mark(source).read()
    found = high_water.checked(source, Mark(source)) if known else high_water.look(source)
    if found is None:
        raise ValueError(f"{source} holds no ledger")
    migrations.refuse(sa.URL.create("sqlite", database=str(source)), found.version)
    opening.refuse_while_asking(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    restored = file.with_name(f"{file.name}.restored")
    migrations.copy(source, restored)
    aside = file.with_name(f"{file.name}.replaced-{_stamp()}") if file.exists() else None
    mark = Mark(file)
    if aside and (before := mark.read()):
        Mark(aside).put(before)
    mark.put(found.mark or HighWater(uuid.uuid4().hex, 0))
    if aside:
        file.rename(aside)
    for kind in ("-wal", "-shm"):
        beside = Path(f"{file}{kind}")
        if beside.exists():
            beside.rename(f"{aside}{kind}") if aside else beside.unlink()
    restored.replace(file)
    artifacts.sync(file.parent)
    return Restored(answers=found.answers if found.version == VERSION else _count(file), replaced=aside)


def accept(url: str | sa.URL) -> Checkup:
    """Lets what is whole count as the ledger from now on, and says what was wrong. The rest is asked and paid again."""
    file = database_file(url)
    found = high_water.look(file)
    if found is None or found.version not in MARKED:
        Mark(file).path.unlink(missing_ok=True)
        return Checkup(answers=0)
    if found.version != VERSION:
        return _accept_as_it_is(file, found)
    opening.refuse_while_asking(file)
    checkup = _check(file)
    engine = database.file_engine(file)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("reindex"))
            for portion in database.chunks(checkup.damaged):
                connection.execute(sa.delete(answers).where(_PLACE.in_(portion)))
            connection.execute(sa.update(attempts).where(_LOST).values(state=ANSWER_LOST))
            there = connection.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one()
            connection.execute(sa.update(high_waters).values(answers=there, commits=high_waters.c.commits + 1))
            question_counts.count_anew(connection)
    finally:
        engine.dispose()
    found = high_water.look(file)
    assert found is not None
    assert found.mark is not None
    Mark(file).put(found.mark)
    return checkup


def _accept_as_it_is(file: Path, found: high_water.Found) -> Checkup:
    """Lets a ledger of an earlier version count, its answers unread, before it is brought to today's."""
    opening.refuse_while_asking(file)
    assert found.mark is not None
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("update high_water set answers = (select count(*) from answers)")
        connection.commit()
    Mark(file).put(found.mark)
    return Checkup(answers=found.answers)


def check(url: str | sa.URL) -> Checkup:
    """What is whole in the ledger; every answer is read."""
    file = database_file(url)
    wrong = []
    try:
        high_water.checked(file, Mark(file))
    except DamagedLedger as error:
        wrong.append(str(error))
    if not file.exists():
        return Checkup(answers=0, wrong=wrong)
    checkup = _check(file)
    return Checkup(answers=checkup.answers, damaged=checkup.damaged, lost=checkup.lost, wrong=[*wrong, *checkup.wrong])


def database_file(url: str | sa.URL) -> Path:
    """The file of an SQLite ledger; ValueError for a database server's."""
    address = sa.make_url(url)
    if address.get_backend_name() != "sqlite":
        raise ValueError(
            f"the ledger is in the database server {address.host}: back it up there, with pg_dump and pg_restore"
        )
    return Path(address.database or "")


def _found(file: Path) -> high_water.Found | None:
    return high_water.checked(file, Mark(file))


def _check(file: Path) -> Checkup:
    """What is whole in a file, whatever its mark says."""
    try:
        with closing(high_water.connect_to_read(file)) as connection:
            said = [line for (line,) in connection.execute("pragma integrity_check")]
    except sqlite3.DatabaseError as error:
        return Checkup(answers=0, wrong=[str(error)])
    wrong = [" ".join(line.split()) for line in said if line != "ok"]
    found = high_water.look(file)
    if found is None or found.version != VERSION:
        return Checkup(answers=0, wrong=wrong)
    engine = database.engine_to_read(file)
    # A text that is none any more is a damaged answer, and not the end of the check.
    sa.event.listen(engine, "connect", _read_any_text)
    try:
        damaged = {row.place: row.key for row in _stored(engine) if not _is_whole(row)}
        with database.reading(engine) as connection:
            lost = connection.execute(sa.select(sa.func.count()).select_from(attempts).where(_LOST)).scalar_one()
            if question_counts.counted(connection) != question_counts.recounted(connection):
                wrong.append("its questions are not as many as it says in its reports")
    except DamagedLedger as error:
        return Checkup(answers=found.answers, wrong=[*wrong, str(error)])
    finally:
        engine.dispose()
    return Checkup(answers=found.answers, damaged=damaged, lost=lost, wrong=wrong)


def _stored(engine: sa.Engine) -> Iterator[sa.Row[Any]]:
    """All answers in the order they were stored, past the index of their keys, which may be damaged."""
    query = sa.select(*stored_answers.COLUMNS, _PLACE.label("place"))
    query = query.outerjoin(requests, requests.c.key == answers.c.key)
    query = query.where(sa.bindparam("after") < _PLACE).order_by(_PLACE)
    after = 0
    while True:
        with database.reading(engine) as connection:
            rows = connection.execute(query.limit(database.AT_A_TIME), {"after": after}).all()
        if not rows:
            return
        yield from rows
        after = rows[-1].place


def _is_whole(row: sa.Row[Any]) -> bool:
    try:
        stored_answers.read(row)
    except DamagedLedger:
        return False
    return True


def _read_any_text(connection: sqlite3.Connection, _: object) -> None:
    connection.text_factory = lambda text: text.decode("utf-8", "replace")


def _count(file: Path) -> int:
    with closing(high_water.connect_to_read(file)) as connection:
        return int(connection.execute("select count(*) from answers").fetchone()[0])


def _in_words(checkup: Checkup) -> str:
    parts = [*checkup.wrong[:MOST_TOLD]]
    if checkup.damaged:
        parts.append(f"{len(checkup.damaged):,} answers are not what was stored")
    if checkup.lost:
        parts.append(f"{checkup.lost:,} answers are gone")
    return "; ".join(parts)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


# Attempts that were answered, whose answer is not there.
_LOST = (attempts.c.state == "answered") & attempts.c.key.not_in(sa.select(answers.c.key))
_PLACE = sa.literal_column("answers.rowid", sa.Integer)
