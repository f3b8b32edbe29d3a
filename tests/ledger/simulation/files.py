"""The disk and its locks, as far as the ledger uses them besides its database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.ledger.simulation.world import PROCESS, Process, World


class Locks:
    """What stands for `file_locks`: a lock ends with its process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self, path: Path) -> Lock | None:
        process = PROCESS.get()
        process.step("take a lock")
        if path in self._world.file_locks:
            return None
        self._world.file_locks[path] = process
        process.locks.add(path)
        return Lock(self._world, path, process)


class Lock:
    def __init__(self, world: World, path: Path, process: Process) -> None:
        self._world, self._path, self._process = world, path, process

    def release(self) -> None:
        if not self._process.dead and self._world.file_locks.get(self._path) is self._process:
            del self._world.file_locks[self._path]
            self._process.locks.discard(self._path)


class Disk:
    """What stands for `os`: writes that fail, or end in the middle with their process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, descriptor: int, content: bytes, at: int) -> int:
        world = self._world
        folder = Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent
        if world.happens(0.1):
            world.full_until[folder] = world.now() + world.chance.uniform(1, 100)
            world.note("*", f"the disk of {folder.relative_to(world.folder)} is full for a while")
        part = world.chance.randint(0, len(content))
        try:
            PROCESS.get().step("write to the spill")
        except BaseException:
            os.pwrite(descriptor, content[:part], at)
            raise
        if world.is_full(folder):
            os.pwrite(descriptor, content[:part], at)
            raise OSError(28, "No space left on device")
        world.counts["spilled"] += 1
        return os.pwrite(descriptor, content, at)

    def fsync(self, descriptor: int) -> None:
        PROCESS.get().step("sync the spill")


def marking(write: Any) -> Any:
    """What stands for `Mark.write`: a process may die between a commit and its mark."""

    def marked(mark: Any, high_water: Any) -> None:
        process = PROCESS.get()
        if process.steps + 1 == process.dies_at:  # its commit is looked at before it dies, not with somebody else's
            process.world.checks.after_commit(process)
        process.step("raise the mark")
        write(mark, high_water)

    return marked
