"""Locks that end with the process that holds them, however it ends: of the file system or of the database server."""

from __future__ import annotations

import hashlib
import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from filelock import FileLock

from nift_assets.ledger.database import outlasting
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
    """One lock that is held."""

    def keep(self) -> bool:
        """Whether it is still ours: one that was lost unseen is taken anew, where nobody else has taken it."""
        ...

    def release(self) -> None: ...


class FileLocks:
    """Locks of the file system in a folder beside an SQLite ledger. SIGKILL releases them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, name: str) -> Lock | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = file_locks.take(self._path(name))
        return _FileLock(lock) if lock else None

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

    @outlasting
    def hold(self, name: str) -> Lock | None:
        connection = self._take(name)
        return _ConnectionLock(self, connection, name) if connection else None

    def _take(self, name: str) -> sa.Connection | None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        is_ours = connection.execute(sa.select(sa.func.pg_try_advisory_lock(_number(name)))).scalar_one()
        if not is_ours:
            connection.close()
        return connection if is_ours else None

    def forget(self, name: str) -> None:
        return

    def free(self, name: str) -> bool:
        lock = self.hold(name)
        if lock:
            lock.release()
        return lock is not None


@dataclass(frozen=True)
class _FileLock:
    lock: FileLock

    def keep(self) -> bool:
        return True

    def release(self) -> None:
        self.lock.release()


@dataclass
class _ConnectionLock:
    """A lock that lives as long as its connection, which a server that restarts closes."""

    locks: AdvisoryLocks
    connection: sa.Connection | None
    name: str

    def keep(self) -> bool:
        if self.connection is not None and not _is_cut(self.connection):
            return True
        self._drop()
        self.connection = self.locks._take(self.name)
        return self.connection is not None

    def release(self) -> None:
        if self.connection is None:
            return
        try:
            # The server takes a moment to notice a closed connection, and the next to ask would be turned away.
            self.connection.execute(sa.select(sa.func.pg_advisory_unlock(_number(self.name))))
        except sa.exc.DBAPIError:
            pass  # it has gone with its connection
        finally:
            self._drop()

    def _drop(self) -> None:
        """Closes the connection instead of giving it back to the pool: that is what frees the lock for sure."""
        if self.connection is not None:
            self.connection.invalidate()
            self.connection.close()
            self.connection = None


def _is_cut(connection: sa.Connection) -> bool:
    """Whether the server has closed an idle connection; it is only asked when something has come from there."""
    if connection.invalidated:
        return True
    driver = connection.connection.driver_connection
    if driver is None or driver.closed:
        return True
    poll = select.poll()
    poll.register(driver.fileno(), select.POLLIN)
    if not poll.poll(0):
        return False
    try:
        connection.execute(sa.select(1))
    except sa.exc.DBAPIError:
        return True
    return False


@contextmanager
def locked(locks: Locks, name: str, refusal: str) -> Iterator[Lock]:
    """Holds a lock for a block; ValueError with the refusal if somebody else has it."""
    lock = locks.hold(name)
    if lock is None:
        raise ValueError(refusal)
    try:
        yield lock
    finally:
        lock.release()


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _number(name: str) -> int:
    return int.from_bytes(_digest(name)[:8], "big", signed=True)
