"""The high-water mark: a small file beside an SQLite ledger that says how many commits the ledger has had.

A ledger that was copied without its `-wal`, or whose last pages were lost, is a whole database to SQLite: it only holds
less, and what it lacks would be paid again. Its mark tells. A crash between a commit and its mark leaves a mark that is
too low, which refuses nothing; none is ever written before its commit.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import time
import uuid
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nift_assets.ledger.tables import MARKED, VERSION
from nift_training import artifacts, file_locks

log = logging.getLogger(__name__)

# A commit writes one of the slots, and a torn one leaves the others.
SLOTS, SLOT_BYTES = 4, 64
# A process that dies loses nothing that was written; a power cut may take the marks of so many seconds.
SECONDS_BETWEEN_SYNCS = 1.0
# What SQLite says where the description of a table is not what it was.
MISSING = re.compile(r"no such (table|column)|has no column named")


@dataclass(frozen=True)
class HighWater:
    """Which ledger a mark belongs to, and how many commits that has had at least."""

    ledger: str
    commits: int


class Mark:
    """The mark beside one SQLite file."""

    def __init__(self, ledger_file: Path) -> None:
        self.path = Path(f"{ledger_file}.mark")
        self._lock = Path(f"{ledger_file}.locks", "mark")
        self._synced_at = 0.0

    def read(self) -> HighWater | None:
        """The highest of its slots that are whole; None without a mark."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        slots = (content[start : start + SLOT_BYTES] for start in range(0, SLOTS * SLOT_BYTES, SLOT_BYTES))
        whole = [mark for slot in slots if (mark := _read(slot)) is not None]
        return max(whole, key=lambda mark: mark.commits, default=None)

    def make(self) -> HighWater:
        """The mark of a ledger that is about to be made; of two who make it at once both get the same."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with file_locks.waited_for(self._lock):
            if (mark := self.read()) is None:
                mark = HighWater(uuid.uuid4().hex, 0)
                self.put(mark)
        return mark

    def put(self, mark: HighWater) -> None:
        """Makes the file anew, in one step, also where the mark is to be lower than it was."""
        with artifacts.replacing(self.path) as partial:
            partial.write_bytes(_slot(mark).ljust(SLOTS * SLOT_BYTES))

    def write(self, mark: HighWater) -> None:
        """Raises the mark behind a commit. That is through whatever happens here, so nothing is raised."""
        try:
            # Opened each time: another process may have put a new file here.
            file = os.open(self.path, os.O_WRONLY)
            try:
                os.pwrite(file, _slot(mark), mark.commits % SLOTS * SLOT_BYTES)
                if time.monotonic() - self._synced_at > SECONDS_BETWEEN_SYNCS:
                    self._synced_at = time.monotonic()
                    os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            log.warning("the mark %s cannot be written: %s", self.path, error)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What stands in an SQLite file: its version (0 for one from before there were versions), and from version 3 on its
    high water, how many answers were written to it and how many are there."""

    version: int
    mark: HighWater | None = None
    answers_written: int = 0
    answers: int = 0


class DamagedLedger(ValueError):
    """A ledger that holds less than it did, or something else: in one line, with what a person can do."""


def checked(file: Path, mark: Mark) -> Found | None:
    """What an SQLite file holds, None for a new one. DamagedLedger where it is less than its mark says; nothing is
    written, so that whoever has what is missing can put it back."""
    # In this order: whoever writes just now raises the mark behind the file.
    known = mark.read()
    try:
        found = look(file)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise DamagedLedger(damaged(file, str(error))) from None
        raise
    if found is not None and found.version in MARKED and known is None:
        raise DamagedLedger(
            f"the ledger {file} has no mark beside it ({mark.path.name}): it was copied without it, and perhaps "
            f"without what was answered last. {_REMEDY.format(file.name)}"
        )
    if known is None or known.commits == 0 or (found is not None and found.version > VERSION):
        return found
    if found is None:
        raise DamagedLedger(
            f"the ledger {file} is gone or empty, and it was written {known.commits:,} times. "
            f"{_REMEDY.format(file.name)}"
        )
    if found.mark is None or found.mark.ledger != known.ledger:
        raise DamagedLedger(
            f"the ledger {file} is not the one that its mark {mark.path.name} belongs to. {_REMEDY.format(file.name)}"
        )
    if found.mark.commits < known.commits:
        raise DamagedLedger(
            f"the ledger {file} lacks what was written last: it was written {known.commits:,} times and holds "
            f"{found.mark.commits:,} of them. {_REMEDY.format(file.name)}"
        )
    if found.answers != found.answers_written:
        raise DamagedLedger(
            f"the ledger {file} holds {found.answers:,} of {found.answers_written:,} answers. "
            f"{_REMEDY.format(file.name)}"
        )
    return found


_REMEDY = (
    "Put all files back whose name begins with {}, or restore a backup (`nift ledger restore PATH`); after `nift "
    "ledger accept` what is there counts, and what is missing is asked and paid again"
)


def look(file: Path) -> Found | None:
    """What stands in an SQLite file, None while that is nothing."""
    if not file.exists() or not file.stat().st_size:
        return None
    with closing(connect_to_read(file)) as connection:
        connection.execute("begin")  # one state of the file
        names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        if "schema" not in names:
            return Found(version=0) if "requests" in names else None
        version = connection.execute("select max(version) from schema").fetchone()[0] or 0
        if version not in MARKED:
            return Found(version=version)
        rows = connection.execute("select ledger, commits, answers from high_water").fetchall()
        there = connection.execute("select count(*) from answers").fetchone()[0]
    ledger, commits, answers = rows[0] if rows else ("", 0, 0)
    return Found(version=version, mark=HighWater(ledger, commits), answers_written=answers, answers=there)


def connect_to_read(file: Path) -> sqlite3.Connection:
    """A connection that writes nothing, whatever the folder lets it do."""
    address = f"{file.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None, timeout=60)
    try:
        connection.execute("select count(*) from sqlite_master").fetchone()
    except UnicodeDecodeError as error:
        # SQLite quotes what it cannot read of the description of a table, and Python cannot read the quotation.
        connection.close()
        raise sqlite3.DatabaseError(f"Could not decode to UTF-8: {error}") from None
    except sqlite3.OperationalError as error:
        connection.close()
        if code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        # Nothing can be made beside the file, and nobody is writing it: what it needs for that would be there. Where a
        # `-wal` cannot be read, its commits are missing, and the mark tells.
        return sqlite3.connect(f"{address}&immutable=1", uri=True, check_same_thread=False, isolation_level=None)
    return connection


def code(error: BaseException) -> int:
    """SQLite's primary code of an error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that a file is not what it was: its pages, or a text that is none any more."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    if MISSING.search(str(error)):
        return True
    return code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "Could not decode to UTF-8" in str(error)


def damaged(file: Path, what: str) -> str:
    """That a ledger is damaged, in a line."""
    return (
        f"the ledger {file} is damaged ({what}): `nift ledger check` says what is whole, `nift ledger restore PATH` "
        "puts a backup back; after `nift ledger accept` what is not whole is asked and paid again"
    )


def _slot(mark: HighWater) -> bytes:
    said = f"{mark.ledger} {mark.commits:015d}"
    return f"{said} {zlib.crc32(said.encode()):08x}".ljust(SLOT_BYTES - 1).encode() + b"\n"


def _read(slot: bytes) -> HighWater | None:
    try:
        ledger, commits, check = slot.decode().split()
        mark = HighWater(ledger, int(commits))
    except ValueError:
        return None
    return mark if _slot(mark).split()[2] == check.encode() else None
