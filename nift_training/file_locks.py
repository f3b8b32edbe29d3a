"""Locks of the operating system on files: one process or thread holds each, and its end releases it, also SIGKILL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS_BETWEEN_LOOKS = 0.01


def take(path: Path) -> FileLock | None:
    """The lock of a file, held until it is released; None while somebody else holds it, another thread too."""
    lock = _lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock of a file. Who looks holds it for an instant: whoever takes it has to be kept from
    trying meanwhile."""
    lock = take(path)
    if lock is None:
        return False
    lock.release()
    return True


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock of a file for a block; ValueError with the refusal while somebody else holds it."""
    lock = take(path)
    if lock is None:
        raise ValueError(refusal)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Holds the lock of a file for a block, once nobody else holds it."""
    with _lock(path).acquire(poll_interval=SECONDS_BETWEEN_LOOKS):
        yield


def _lock(path: Path) -> FileLock:
    # A new object each time: one object would let its own thread in twice. Another thread may release it. Where the
    # disk has no locks an error is right: a file that only stands for a lock outlives the process that was killed.
    return FileLock(path, thread_local=False, fallback_to_soft=False)
