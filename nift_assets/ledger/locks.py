"""Locks that end with the process that holds them, however it ends: of the file system or of the database server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from nift_training import file_locks


class Locks(Protocol):
    """Named locks, one holder each."""

    def hold(self, name: str) -> Lock | None:
        """The lock, or None while somebody else holds it."""
        ...

    def free(self, name: str) -> bool:
        """Whether nobody holds the lock now."""
        ...

    def forget(self, name: str) -> None:
        """Clears away what is left of a lock whose name is never used again."""
        ...


class Lock(Protocol):
    def release(self) -> None: ...


class FileLocks:
    """Locks of the file system in a folder beside an SQLite ledger. SIGKILL releases them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, name: str) -> Lock | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        return file_locks.take(self._path(name))

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / _digest(name).hex()[:16]

    def free(self, name: str) -> bool:
        lock = self.hold(name)
        if lock:
            lock.release()
        return lock is not None


class AdvisoryLocks:
    """Advisory locks of a PostgreSQL server, each on a connection of its own that lives as long as the lock."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def hold(self, name: str) -> Lock | None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        is_ours = connection.execute(sa.select(sa.func.pg_try_advisory_lock(_number(name)))).scalar_one()
        if not is_ours:
            connection.close()
            return None
        return _ConnectionLock(connection, name)

    def forget(self, name: str) -> None:
        return

    def free(self, name: str) -> bool:
        lock = self.hold(name)
        if lock:
            lock.release()
        return lock is not None


@dataclass(frozen=True)
class _ConnectionLock:
    connection: sa.Connection
    name: str

    def release(self) -> None:
        try:
            # The server takes a moment to notice a closed connection, and the next to ask would be turned away.
            self.connection.execute(sa.select(sa.func.pg_advisory_unlock(_number(self.name))))
        finally:
            # The connection is not given back to the pool: closing it is what frees the lock for sure.
            self.connection.invalidate()
            self.connection.close()


@contextmanager
def locked(locks: Locks, name: str, refusal: str) -> Iterator[None]:
    """Holds a lock for a block; ValueError with the refusal if somebody else has it."""
    lock = locks.hold(name)
    if lock is None:
        raise ValueError(refusal)
    try:
        yield
    finally:
        lock.release()


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _number(name: str) -> int:
    return int.from_bytes(_digest(name)[:8], "big", signed=True)
