"""A merged shard written while its base's shard is read: four threads pass a ring of buffers on from one to the next.

One reads and hashes, one does the arithmetic, one hashes what came out, one writes. What is in memory at a time is a
handful of pieces of a few MiB, whatever the model's size. All four spend their time outside Python's lock (reading,
hashing, torch, writing), so two cores are busy with one shard.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

from nift_training import shards
from nift_training.adapters import Low, Whole
from nift_training.shards import Shard, Tensor

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 8 * 2**20
PIECES = 6
BLOCK = 4096
"""What a disk wants addresses and sizes to be a multiple of when nothing is to stand between it and memory."""
# Sixteen rows of 4,096: both float32 blocks stay in the core's own cache. In one go over a piece of 1,024 rows the same
# arithmetic took 8.3 ms of CPU, in these blocks 3.9.
BLOCK_NUMBERS = 16 * 4096


@dataclass(frozen=True, kw_only=True)
class Written:
    """One shard as it was written: its name, its size, the hashes of what was read and of what was written."""

    name: str
    bytes: int
    sha256: str
    source_sha256: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some consecutive bytes of a shard: of its header, or whole rows of one tensor, from number `first` on."""

    start: int
    bytes: int
    tensor: Tensor | None = None
    first: int = 0

    @property
    def inset(self) -> int:
        """Where in a buffer its bytes begin, so that the buffer begins where a block of the file does."""
        return self.start % BLOCK

    def of(self, buffer: mmap.mmap) -> memoryview:
        return memoryview(buffer)[self.inset : self.inset + self.bytes]


def rewrite(shard: Shard, changes: Mapping[str, Low | Whole], adapter: Path, out: Path) -> Written:
    """Writes the shard with its changed tensors to `out`; to `flush` it is the caller's part.

    ValueError for a tensor that is not finite afterwards, OSError for a disk that is full.
    """
    pieces = list(_pieces(shard))
    empty, read, changed, hashed = (_Station() for _ in range(4))
    before, after = hashlib.sha256(), hashlib.sha256()
    widest = max(piece.bytes for piece in pieces)
    for _ in range(min(PIECES, len(pieces))):
        empty.put(mmap.mmap(-1, widest + BLOCK))

    def reading() -> None:
        with shard.path.open("rb", buffering=0) as file:
            for piece in pieces:
                buffer = empty.take()
                _fill(file, piece.of(buffer), shard.path)
                before.update(piece.of(buffer))
                read.put(buffer)

    def changing() -> None:
        merging = _Merging(changes, adapter)
        for piece in pieces:
            buffer = read.take()
            merging.change(piece, buffer)
            changed.put(buffer)

    def hashing() -> None:
        for piece in pieces:
            buffer = changed.take()
            after.update(piece.of(buffer))
            hashed.put(buffer)

    def writing() -> None:
        rest = b""
        with _written_through(out) as file:
            for piece in pieces:
                buffer = hashed.take()
                content = memoryview(buffer)[: piece.inset + piece.bytes]
                content[: piece.inset] = rest  # the end of the piece before, which did not fill a block
                whole = len(content) // BLOCK * BLOCK
                _drain(file, content[:whole])
                rest = bytes(content[whole:])
                empty.put(buffer)
            _drain(file, _padded(rest))
            os.ftruncate(file, shard.bytes)

    _together([changing, reading, hashing, writing], [empty, read, changed, hashed])
    return Written(
        name=shard.path.name,
        bytes=shard.bytes,
        sha256=after.hexdigest(),
        source_sha256=before.hexdigest(),
    )


def flush(path: Path) -> None:
    """Waits until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Merging:
    """The arithmetic of one shard, with the matrices of the tensor at hand and two float32 blocks that are reused."""

    def __init__(self, changes: Mapping[str, Low | Whole], adapter: Path) -> None:
        self.changes = changes
        self.adapter = adapter
        self.tensor: Tensor | None = None
        self.left: Any = None
        self.right: Any = None

    def change(self, piece: Piece, buffer: mmap.mmap) -> None:
        """Changes the bytes of a piece in place; those of an unchanged tensor are only checked."""
        import torch

        tensor = piece.tensor
        if tensor is None or tensor.dtype not in shards.FLOATS or not piece.bytes:
            return
        dtype = getattr(torch, shards.FLOATS[tensor.dtype])
        content = torch.frombuffer(buffer, dtype=torch.uint8)[piece.inset : piece.inset + piece.bytes]
        # The format lets a tensor begin where no number of its type may.
        numbers = (content if piece.inset % dtype.itemsize == 0 else content.clone()).view(dtype)
        self._add(piece, tensor, numbers)
        if not is_finite(numbers):
            raise ValueError(f"{tensor.name} is not finite after merging: the base or the adapter is damaged")
        if piece.inset % dtype.itemsize:
            content.copy_(numbers.view(torch.uint8))

    def _add(self, piece: Piece, tensor: Tensor, numbers: torch.Tensor) -> None:
        change = self.changes.get(tensor.name)
        if isinstance(change, Whole):
            of_row = tensor.numbers // tensor.shape[0]
            saved = shards.rows(self.adapter, change.tensor, piece.first // of_row, len(numbers) // of_row)
            numbers.copy_(saved.flatten())
        elif change is not None:
            if tensor is not self.tensor:
                self.left, self.right = matrices(self.adapter, change)
                self.tensor = tensor
            weight = numbers.view(-1, tensor.shape[1])
            first = piece.first // tensor.shape[1]
            add_product(weight, self.left[first : first + len(weight)], self.right, change.scale)


def matrices(adapter: Path, change: Low) -> tuple[torch.Tensor, torch.Tensor]:
    """The two matrices of a LoRA layer in float32, the first with the rows of W and the second with its columns."""
    left, right = (shards.rows(adapter, tensor).float() for tensor in (change.left, change.right))
    return (left.T.contiguous(), right.T.contiguous()) if change.flipped else (left, right)


def add_product(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """W += scale·(left·right) in place, computed in float32 in peft's order and rounded once to the type of W."""
    import torch

    columns = weight.shape[1]
    height = max(1, BLOCK_NUMBERS // columns)
    product, wide = torch.empty(height, columns), torch.empty(height, columns)
    for first in range(0, len(weight), height):
        rows = weight[first : first + height]
        delta = torch.mm(left[first : first + height], right, out=product[: len(rows)])
        delta.mul_(scale)
        if rows.dtype == torch.float32:
            rows.add_(delta)
        else:
            # Adding float32 to bfloat16 in one call is thirty times slower than the three steps.
            rows.copy_(wide[: len(rows)].copy_(rows).add_(delta))


def is_finite(numbers: torch.Tensor) -> bool:
    """Whether no number is infinite or none: a finite sum has only finite terms, and summing is nine times as fast."""
    import torch

    total = numbers.sum(dtype=torch.float64 if numbers.dtype == torch.float64 else torch.float32)
    return bool(total.isfinite()) or bool(numbers.isfinite().all())


def _pieces(shard: Shard) -> Iterator[Piece]:
    """The whole shard from its first byte to its last; a changed tensor must be cut between rows, so all are."""
    for start in range(0, shard.start, PIECE_BYTES):
        yield Piece(start=start, bytes=min(PIECE_BYTES, shard.start - start))
    for tensor in shard.tensors:
        size = tensor.end - tensor.start
        if not size:
            continue
        of_row = size // tensor.shape[0] if tensor.shape else size
        step = max(PIECE_BYTES // of_row, 1) * of_row
        for place in range(0, size, step):
            yield Piece(
                start=tensor.start + place,
                bytes=min(step, size - place),
                tensor=tensor,
                first=place * tensor.numbers // size,
            )


class _Stopped(Exception):
    """Another of the threads has failed, so that this one has nothing left to do."""


class _Station(Queue[mmap.mmap | None]):
    """Where one thread leaves buffers for the next."""

    def take(self) -> mmap.mmap:
        if (buffer := self.get()) is None:
            raise _Stopped
        return buffer


def _together(tasks: list[Callable[[], None]], stations: list[_Station]) -> None:
    """Runs the tasks side by side, the first in this thread; when one fails all end, and its error is raised."""
    failures: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except _Stopped:
            pass
        except BaseException as failure:  # raised again below
            failures.append(failure)
            for station in stations:
                station.put(None)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks[1:]]
    for thread in threads:
        thread.start()
    guarded(tasks[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def _written_through(out: Path) -> Iterator[int]:
    """A new file that is written past the page cache where system and file system can.

    What is written once and not read is better not kept: on a virtual machine whose host gave it each page first, 1 GiB
    and its flush took 4.8 s through the cache and 0.8 s past it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        file = os.open(out, flags | getattr(os, "O_DIRECT", 0), 0o666)
    except OSError as refusal:
        if refusal.errno != errno.EINVAL:
            raise
        file = os.open(out, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _drain(file: int, content: memoryview) -> None:
    while content:
        try:
            content = content[os.write(file, content) :]
        except OSError as refusal:
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            if refusal.errno != errno.EINVAL or not flags & getattr(os, "O_DIRECT", 0):
                raise
            fcntl.fcntl(file, fcntl.F_SETFL, flags & ~os.O_DIRECT)  # a disk of larger blocks


def _padded(rest: bytes) -> memoryview:
    """A block that begins with the last bytes of a file, or nothing where there are none."""
    block = mmap.mmap(-1, BLOCK)
    block[: len(rest)] = rest
    return memoryview(block)[: BLOCK if rest else 0]


def _fill(file: Any, content: memoryview, path: Path) -> None:
    while content:
        if not (count := file.readinto(content)):
            raise ValueError(f"{path} has become shorter while it was read: download it again")
        content = content[count:]
