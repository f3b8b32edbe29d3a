"""The spill: rows that wait in a file of their own while the ledger cannot be written, and are taken into it later.

Each session has its own file, which is locked as long as the session lives. A line is a checksum and a row; lines are
only added, and are on the disk before anybody counts on them. Nothing here knows what a row means.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nift_assets import environment
from nift_training import artifacts, file_locks

Row = Mapping[str, Any]
# A file is of a session, and no two have one name: a ledger that was begun anew gives its numbers out anew.
_NAME = re.compile(r"(\d+)-[0-9a-f]{8}\.jsonl")


def folders(url: sa.URL) -> list[Path]:
    """Where a ledger's spill may lie, the first choice first.

    Beside an SQLite file, and where that disk is full in the user's own folder, which is the only place for a
    database server's. `NIFT_LEDGER_SPILL` names another folder for either.
    """
    is_file = url.get_backend_name() == "sqlite"
    if is_file and (url.database or ":memory:") == ":memory:":
        return []
    place = str(Path(url.database or "").absolute()) if is_file else f"{url.host}:{url.port}/{url.database}"
    own = hashlib.sha256(f"{url.get_backend_name()} {place}".encode()).hexdigest()[:16]
    if named := environment.ledger_spill():
        return [Path(named, own)]
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return [*([Path(f"{place}.spill")] if is_file else []), Path(state, "nift", "spill", own)]


class Spill:
    """The files of one ledger's spill, on this machine."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def of(self, session: int) -> SpillFile:
        """The file of a session that lives; it is made when it is first needed."""
        name = f"{session}-{secrets.token_hex(4)}.jsonl"
        return SpillFile([_Part(folder / name) for folder in self._folders])

    def sessions(self) -> set[int]:
        """The sessions of which something lies here."""
        return {int(found[1]) for path in self._files() if (found := _NAME.fullmatch(path.name))}

    def left_behind(self) -> Iterator[LeftBehind]:
        """The files whose session is gone, each locked while it is looked at."""
        for path in self._files():
            lock = file_locks.take(_lock_of(path))
            if lock is None:
                continue
            try:
                if path.exists():  # nobody else has taken it in meanwhile
                    yield _read(path)
                if not path.exists():
                    _lock_of(path).unlink(missing_ok=True)
            finally:
                lock.release()

    def _files(self) -> list[Path]:
        return sorted(path for folder in self._folders for path in _listed(folder) if _NAME.fullmatch(path.name))


@dataclass(frozen=True)
class LeftBehind:
    """What a session left behind: its rows, and how many lines of its file are none. A last line that was cut short is
    no row and no damage: whoever wrote it did not count on it."""

    path: Path
    rows: Sequence[dict[str, Any]]
    damaged: int

    def discard(self) -> None:
        """Removes the file: all that was in it is in the ledger."""
        self.path.unlink()

    def put_aside(self) -> Path:
        """Gives the file a name under which it is not looked at again, and which a person can look at."""
        return self.path.rename(self.path.with_suffix(".aside"))


class SpillFile:
    """What one session has put outside the ledger. It owns the file and its lock, from the first row on.

    It lies in the first folder that takes it; where one is full the next is used.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self._kept: set[int] = set()

    def keep(self, rows: Mapping[int, Row]) -> None:
        """The rows, each under its number, are on the disk when this returns; one that is there already stays as it is.

        Raises OSError if no folder takes them.
        """
        new = [number for number in rows if number not in self._kept]
        if not new:
            return
        lines = b"".join(_line(rows[number]) for number in new)
        trouble: OSError | None = None
        for part in self._parts:
            try:
                part.append(lines)
            except OSError as error:
                trouble = trouble or error
            else:
                self._kept.update(new)
                return
        raise trouble or OSError("a ledger in memory has no spill")

    def places(self) -> list[Path]:
        """The files in which something is."""
        return [part.path for part in self._parts if part.size]

    def discard(self) -> None:
        """Removes what is here: it is all in the ledger."""
        self._kept.clear()
        for part in self._parts:
            part.close(remove=True)

    def close(self) -> None:
        """Leaves what is here to whoever opens the ledger next."""
        self._kept.clear()
        for part in self._parts:
            part.close(remove=False)


@dataclass
class _Part:
    """A spill file in one folder."""

    path: Path
    size: int = 0
    _descriptor: int | None = None
    _lock: Any = field(default=None, repr=False)

    def append(self, lines: bytes) -> None:
        if self._descriptor is None:
            self._create()
        assert self._descriptor is not None
        # Written at its own place, so that what an earlier try may have left there is written over.
        os.ftruncate(self._descriptor, self.size)
        written = 0
        while written < len(lines):
            written += os.pwrite(self._descriptor, lines[written:], self.size + written)
        os.fsync(self._descriptor)
        self.size += len(lines)

    def close(self, *, remove: bool) -> None:
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        if remove or not self.size:
            # What cannot be removed is taken in again, which changes nothing.
            with suppress(OSError):
                self.path.unlink()
                _lock_of(self.path).unlink()
        self._lock.release()
        self._descriptor, self._lock, self.size = None, None, 0

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_locks.take(_lock_of(self.path))
        assert lock is not None, "nobody else knows its name"
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            artifacts.sync(self.path.parent)
        except OSError:
            self._descriptor = None
            lock.release()
            raise
        self._lock = lock


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []  # who may not look there has put nothing there


def _read(path: Path) -> LeftBehind:
    content = path.read_bytes()
    rows, damaged = [], 0
    for line in content.split(b"\n")[:-1]:
        checksum, _, text = line.partition(b" ")
        if checksum == _checksum(text):
            rows.append(json.loads(text, object_hook=_decoded))
        else:
            damaged += 1
    return LeftBehind(path, rows, damaged)


def _line(row: Row) -> bytes:
    text = json.dumps(row, default=_encoded).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _encoded(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _decoded(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")
