"""The draw: documents ordered by a hash of the seed and their text, the first n of them, read in one pass.

Memory grows neither with the corpus nor with its texts, only with the number of documents sampled and with what is left
out: of every document 28 bytes go to the disk, to find those that occur twice, and the texts that are among the first n
so far lie there as well, until it is known which stay. From there they are read back a few at a time.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
import weakref
from binascii import hexlify
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b, sha256
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from nift_assets.corpus import locations, reading, units
from nift_assets.corpus.duplicates import DocumentIndex
from nift_assets.rows import Corpus, Unit
from nift_assets.table_files import naming_the_disk

SECONDS_BETWEEN_REPORTS = 5.0
TEXT_AT_ONCE = 8 * 2**20

SAMPLE_SCHEMA = {
    "document_id": pl.String,
    "sample_rank": pl.Int64,
    "text": pl.String,
    "words": pl.Int64,
    "file": pl.String,
    "row": pl.Int64,
}
REJECTS_SCHEMA = {"file": pl.String, "row": pl.Int64, "document_id": pl.String, "reason": pl.String}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the reading has come: files read to their end, of all; rows of the corpus and bytes of text so far."""

    files: int
    total_files: int
    rows: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        speed = self.bytes / 2**20 / max(self.seconds, 1e-9)
        return (
            f"{self.rows:,} documents, {self.bytes / 2**20:,.0f} MB of text ({speed:,.0f} MB/s), "
            f"{self.files} of {self.total_files} files read"
        )


def document_id(text: str) -> str:
    """The name of a document wherever it is found: 128 bits of the sha256 of its text."""
    return sha256(text.encode()).hexdigest()[:32]


def sample(
    corpus: Corpus, *, threads: int | None = None, report: Callable[[Progress], None] = lambda progress: None
) -> Sample:
    """`corpus.documents` different documents (all, if None), uniform without replacement, in sample order.

    Documents are ordered by a hash of (seed, document id), so a smaller sample is a prefix of a larger one whatever the
    order of files and rows, and whatever `threads`, the number of files read at once. A text that occurs again in a
    later file or row is left out and listed, as is a row that is no text. Texts wait in the temporary folder: about
    n (1 + ln(N/n)) of them for n of N documents.
    """
    files, about = locations.listed(corpus)
    with _scratch() as folder, ExitStack() as opened:
        texts = opened.enter_context((folder / "texts").open("w+b"))
        drawing = _Drawing(corpus, files, about, texts, DocumentIndex(folder), report)
        with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
            try:
                for _ in pool.map(drawing.take, range(len(files))):
                    pass
            except BaseException:
                drawing.stopped.set()  # or an interrupt would wait until every file has been read
                raise
        if drawing.is_empty:
            if drawing.unreadable:
                raise drawing.unreadable[min(drawing.unreadable)]
            raise ValueError(f"{corpus.location}: no document with text in it; give a corpus with at least one")
        opened.pop_all()  # the texts stay until nobody has the sample any more, though their folder goes
        return drawing.sample()


@dataclass(frozen=True, slots=True)
class _DrawnText:
    """A text among the first so far: where it lies on the disk, and the first place it was found in."""

    start: int
    size: int
    file: int
    row: int


class Sample:
    """The sampled documents, and every document of the corpus that could not be sampled with the reason; of files that
    could not be read a line each says why (`unreadable`).

    The texts lie on the disk, in a file without a name that ends with this value.
    """

    def __init__(
        self,
        kept: Sequence[_DrawnText],
        files: Sequence[str],
        texts: IO[bytes],
        rejects: pl.DataFrame,
        read: Progress,
        unreadable: Sequence[str] = (),
        cut_at: Unit = "spaces",
    ) -> None:
        self._cut_at = cut_at
        self.unreadable = unreadable
        self.rejects = rejects
        self.read = read
        self._kept = kept
        self._files = pl.Series(files, dtype=pl.String)
        self._texts = texts
        weakref.finalize(self, texts.close)

    def portions(self) -> Iterator[pl.DataFrame]:
        """The documents in sample order, a few megabytes at a time."""
        rank = 0
        for portion in _few_at_a_time(self._kept):
            yield self._read_back(portion, rank)
            rank += len(portion)

    @cached_property
    def documents(self) -> pl.DataFrame:
        """The documents in sample order; their texts lie in memory once."""
        return pl.concat(self.portions(), rechunk=False)

    def _read_back(self, kept: Sequence[_DrawnText], rank: int) -> pl.DataFrame:
        import pyarrow as pa

        texts = [os.pread(self._texts.fileno(), document.size, document.start) for document in kept]
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        joined = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
        text = pl.Series("text", joined)
        return pl.DataFrame(
            {
                "document_id": [sha256(content).hexdigest()[:32] for content in texts],
                "sample_rank": pl.int_range(rank, rank + len(texts), dtype=pl.Int64, eager=True),
                "text": text,
                "words": units.counts(text, self._cut_at),
                "file": self._files.gather([document.file for document in kept]),
                "row": pl.Series([document.row for document in kept], dtype=pl.Int64),
            },
            schema=SAMPLE_SCHEMA,
        )


class _Drawing:
    """The reading of one corpus as it goes on; several threads may take a file each."""

    def __init__(
        self,
        corpus: Corpus,
        files: Sequence[str],
        about: Sequence[str],
        texts: IO[bytes],
        index: DocumentIndex,
        report: Callable[[Progress], None],
    ) -> None:
        self._corpus = corpus
        self._files = files
        self._about = about
        self._texts = texts
        self._index = index
        self._report = report
        self._wanted = corpus.documents or sys.maxsize
        self._first: dict[bytes, _DrawnText] = {}  # by rank: the wanted ones so far, and a few more
        self._limit: bytes | None = None  # once there are enough, what comes behind this rank is not wanted
        self._faults: list[tuple[int, int, str]] = []
        self.unreadable: dict[int, reading.UnreadableFile] = {}
        self._written, self._ended, self._rows, self._bytes = 0, 0, 0, 0
        self._began = self._reported = time.monotonic()
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    @property
    def is_empty(self) -> bool:
        return not self._first

    def progress(self) -> Progress:
        return Progress(
            files=self._ended,
            total_files=len(self._files),
            rows=self._rows,
            bytes=self._bytes,
            seconds=time.monotonic() - self._began,
        )

    def take(self, number: int) -> None:
        """Read one file to its end, or until the reading is stopped because another thread has failed.

        Of several files one that cannot be read is listed, and what was read of it before stays.
        """
        read = 0
        try:
            for batch in reading.batches(self._files[number], self._corpus.text_column):
                if self.stopped.is_set():
                    return
                rows = [row for row, text in enumerate(batch.texts, batch.row) if text is not None]
                texts = [text for text in batch.texts if text is not None]
                names = [sha256(text).digest()[:16] for text in texts]
                ranks = [_rank(name, self._corpus.seed) for name in names]
                with self._lock:
                    self._index.add(names, number, rows)
                    self._keep(number, rows, texts, ranks)
                    self._faults += [(number, batch.row + place, reason) for place, reason in batch.faults.items()]
                    self._count(len(batch.texts), sum(map(len, texts)))
                read = batch.row + len(batch.texts)
            with self._lock:
                self._ended += 1
        except reading.UnreadableFile as error:
            if len(self._files) == 1:
                raise
            with self._lock:
                self._faults.append((number, read, "unreadable file"))
                self.unreadable[number] = error
                if len(self.unreadable) > len(self._files) / 2:
                    self.stopped.set()
                    raise self.unreadable[min(self.unreadable)] from None
        except BaseException:
            self.stopped.set()
            raise

    def _keep(self, number: int, rows: Sequence[int], texts: Sequence[bytes], ranks: Sequence[bytes]) -> None:
        for row, text, rank in zip(rows, texts, ranks, strict=True):
            if self._limit is not None and rank > self._limit:
                continue
            kept = self._first.get(rank)
            if kept is not None:
                if (number, row) < (kept.file, kept.row):
                    self._first[rank] = replace(kept, file=number, row=row)
            else:
                self._texts.write(text)
                self._first[rank] = _DrawnText(self._written, len(text), number, row)
                self._written += len(text)
        # Now and then, not for each: a quarter more than wanted costs little to carry along.
        if len(self._first) >= self._wanted + max(self._wanted // 4, 1_000):
            wanted = sorted(self._first)[: self._wanted]
            self._first = {rank: self._first[rank] for rank in wanted}
            self._limit = wanted[-1]

    def _count(self, rows: int, size: int) -> None:
        self._rows += rows
        self._bytes += size
        if time.monotonic() - self._reported > SECONDS_BETWEEN_REPORTS:
            self._reported = time.monotonic()
            self._report(self.progress())

    def sample(self) -> Sample:
        """What was drawn, once all files have been read."""
        self._texts.flush()
        kept = [self._first[rank] for rank in sorted(self._first)[: self._wanted]]
        unreadable = [str(self.unreadable[number]) for number in sorted(self.unreadable)]
        return Sample(kept, self._files, self._texts, self.rejects(), self.progress(), unreadable, self._corpus.cut_at)

    def rejects(self) -> pl.DataFrame:
        """What could not be sampled, by file and row: repeated texts, and rows that are no text."""
        rows: list[tuple[int, int, str | None, str]] = [(file, row, None, reason) for file, row, reason in self._faults]
        for duplicates in self._index.duplicates():
            names = np.stack([duplicates["first"], duplicates["last"]], axis=1).astype(">u8").tobytes().hex()
            rows += [
                (file, row, names[32 * place : 32 * place + 32], "duplicate")
                for place, (file, row) in enumerate(
                    zip(duplicates["file"].tolist(), duplicates["row"].tolist(), strict=True)
                )
            ]
        frame = pl.DataFrame(rows, schema=REJECTS_SCHEMA | {"file": pl.Int64}, orient="row").sort("file", "row")
        named = frame.with_columns(file=pl.Series(self._files, dtype=pl.String).gather(frame["file"]))
        about = pl.DataFrame([(file, 0, None, "not an article") for file in self._about], REJECTS_SCHEMA, orient="row")
        return pl.concat([named, about]).sort("file", "row") if self._about else named


def _rank(name: bytes, seed: int) -> bytes:
    """What a document is ordered by: BLAKE2b of the seed and its name in hexadecimal. Never to be changed."""
    return blake2b(b"%d\0%s" % (seed, hexlify(name)), digest_size=16, person=b"nift.sample").digest()


def _few_at_a_time(kept: Sequence[_DrawnText]) -> Iterator[Sequence[_DrawnText]]:
    start, size = 0, 0
    for place, document in enumerate(kept):
        size += document.size
        if size >= TEXT_AT_ONCE:
            yield kept[start : place + 1]
            start, size = place + 1, 0
    if start < len(kept):
        yield kept[start:]


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder, for what waits until it is known which documents are sampled."""
    remedy = "set TMPDIR to a folder on a larger disk; nothing was written"
    with tempfile.TemporaryDirectory(prefix="nift-corpus-") as folder, naming_the_disk(Path(folder), remedy):
        yield Path(folder)
