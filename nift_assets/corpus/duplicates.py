"""Which documents occur more than once: 28 bytes for each document on the disk, a small part of them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A place in the corpus, and the name of the document that was found there as two numbers of 64 bits.
PLACE = np.dtype([("first", np.uint64), ("last", np.uint64), ("file", np.uint32), ("row", np.uint64)])
PARTS = 256
MOST_IN_MEMORY = 2**20


class DocumentIndex:
    """The names of all documents and where each was found; of many, in 256 files by the name's first byte."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[NDArray[np.void]] = []
        self._rows = 0

    def add(self, names: Sequence[bytes], file: int, rows: Sequence[int]) -> None:
        """The documents of these names (16 bytes each) were found in these rows of a file."""
        places = np.empty(len(names), dtype=PLACE)
        halves = np.frombuffer(b"".join(names), dtype=">u8").reshape(-1, 2)
        places["first"], places["last"], places["file"], places["row"] = halves[:, 0], halves[:, 1], file, rows
        self._waiting.append(places)
        self._rows += len(names)
        if self._rows >= MOST_IN_MEMORY:
            self._write()

    def duplicates(self) -> Iterator[NDArray[np.void]]:
        """The places where a document occurs that occurs in an earlier file or row as well, a part at a time."""
        for part in self._parts():
            places = part[np.lexsort([part[field] for field in ("row", "file", "last", "first")])]
            same = (places["first"][1:] == places["first"][:-1]) & (places["last"][1:] == places["last"][:-1])
            if same.any():
                yield places[1:][same]

    def _parts(self) -> Iterator[NDArray[np.void]]:
        if not any(self._folder.glob("seen-*")):
            yield np.concatenate([np.empty(0, dtype=PLACE), *self._waiting])
            return
        self._write()
        for part in sorted(self._folder.glob("seen-*")):
            yield np.fromfile(part, dtype=PLACE)

    def _write(self) -> None:
        places = np.concatenate([np.empty(0, dtype=PLACE), *self._waiting])
        self._waiting, self._rows = [], 0
        part = (places["first"] >> np.uint64(56)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        stops = np.searchsorted(part[order], np.arange(PARTS), side="right")
        for number, some in enumerate(np.split(places[order], stops[:-1])):
            if len(some):
                with (self._folder / f"seen-{number:03}").open("ab") as file:
                    some.tofile(file)
