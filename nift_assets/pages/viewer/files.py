"""The files of the tables of a study, what their footers say, and whether their rows are those that were written.

Holding 1.5 GB of rows against their digests takes seconds, which nobody waits for who wants to read one row. A page
reads the footer first: its seal says which file this is. The rows of a small file are checked before they are shown,
those of a large one behind the page; until that has ended the page says so, and damage then replaces the rows.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nift_assets import table_files
from nift_assets.store import Store, place
from nift_assets.table_files import DamagedTable

# Checked at once in a few milliseconds.
SMALL_BYTES = 2_000_000
FAILING = ".failing"
State = Literal["checked", "under way", "not checked"]


class Changed(Exception):
    """A file was replaced while it was read."""


@dataclass(frozen=True)
class TableFile:
    """A file of a table: which partition it is, and which very file, so that a later one is told from it."""

    table: str
    partition: str | None
    path: Path
    bytes: int
    stamp: tuple[int, ...] = ()
    sealed: bool = True

    @property
    def place(self) -> str:
        return place(self.table, self.partition)


def stored(store: Store) -> dict[str, list[TableFile]]:
    """The files of every table of a study, partitions by their names; empty if nothing has been made."""
    folder = store.folder()
    if not folder.exists():
        return {}
    found: dict[str, list[TableFile]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.startswith("."):
            continue
        if path.name.endswith(".parquet"):
            found.setdefault(path.name.removesuffix(".parquet"), []).append(_file(path.name[:-8], None, path))
        elif path.is_dir():
            parts = sorted(_tables_in(path), key=lambda path: path.name)
            files = [_file(path.name, part.name.removesuffix(".parquet"), part) for part in parts]
            if files:
                found.setdefault(path.name, []).extend(files)
    return dict(sorted(found.items()))


def of_table(store: Store, table: str, partition: str | None = None) -> list[TableFile]:
    """The files of one table, or the file of one partition of it; empty where nothing is stored."""
    if partition is not None:
        path = store.path(table, partition)
        return [_file(table, partition, path)] if path.exists() else []
    path = store.path(table, None)
    whole = [_file(table, None, path)] if path.exists() else []
    folder = store.folder(table)
    parts = sorted(_tables_in(folder), key=lambda path: path.name) if folder.is_dir() else []
    return whole + [_file(table, part.name.removesuffix(".parquet"), part) for part in parts]


def failing(store: Store) -> list[tuple[TableFile, str]]:
    """The kept rows that tests refused, a file for each test of a partition, with the test's name."""
    root = store.folder(FAILING)
    if not root.is_dir():
        return []
    found = []
    for path in sorted(root.rglob("*.parquet"), key=str):
        parts = path.relative_to(root).parts
        if len(parts) in (2, 3) and not path.name.startswith("."):
            partition = parts[1] if len(parts) == 3 else None
            found.append((_file(parts[0], partition, path, sealed=False), path.name.removesuffix(".parquet")))
    return found


def failing_rows(store: Store, table: str, partition: str | None, test: str) -> TableFile | None:
    """The file of the rows that one test refused, None where it refused none."""
    return next(
        (file for file, name in failing(store) if (file.table, file.partition, name) == (table, partition, test)), None
    )


def _tables_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name.endswith(".parquet") and not path.name.startswith("."))


def _file(table: str, partition: str | None, path: Path, *, sealed: bool = True) -> TableFile:
    stat = path.stat()
    stamp: tuple[int, ...] = ()
    if "://" not in str(path):
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return TableFile(table, partition, path, stat.st_size, stamp, sealed)


class Checks:
    """What is known of the rows of files: one thread of the lowest priority holds large ones against their digests, and
    does with those that are sound what else there is to be done."""

    def __init__(self, then: Callable[[TableFile], None]) -> None:
        self._then = then
        self._found: dict[TableFile, DamagedTable | None] = {}
        self._asked: set[TableFile] = set()
        self._queue: queue.SimpleQueue[TableFile] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def state(self, file: TableFile) -> State:
        """How far the check of a file has come. DamagedTable if it is not what was written, as far as that is known."""
        if not file.sealed:
            return "not checked"
        if file not in self._found:
            table_files.version(file.path, file.place)  # the footer, before anything of it is shown
            if not file.stamp:
                return "not checked"  # each look at a remote file would be a download of it
            if file.bytes > SMALL_BYTES:
                self._ask(file)
                return "under way"
            self._look(file)
        if damage := self._found[file]:
            raise damage
        return "checked"

    def refuse_known(self, file: TableFile) -> None:
        """DamagedTable if a file is known to be damaged or its footer says so; its rows are left alone."""
        if damage := self._found.get(file):
            raise damage
        if file not in self._found and file.sealed:
            table_files.version(file.path, file.place)

    def _ask(self, file: TableFile) -> None:
        with self._lock:
            if file in self._asked:
                return
            self._asked.add(file)
            if not self._started:
                self._started = True
                threading.Thread(target=self._work, name="nift-look-checks", daemon=True).start()
        self._queue.put(file)

    def _work(self) -> None:
        with suppress(OSError, AttributeError):
            # On Linux a thread's number has a priority of its own: who reads goes before who checks.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            file = self._queue.get()
            self._look(file)
            if not self._found.get(file):
                # It makes searches faster and nothing else: without it they read every row, and the checks go on.
                with suppress(Exception):
                    self._then(file)

    def _look(self, file: TableFile) -> None:
        try:
            table_files.check(file.path, file.place)
        except DamagedTable as damage:
            self._found[file] = damage
        except OSError:  # it was replaced or is gone: the next page meets the next file
            with self._lock:
                self._asked.discard(file)
            self._found[file] = None
        else:
            self._found[file] = None
