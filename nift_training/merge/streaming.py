"""A merged shard written while its base's shard is read: threads pass a ring of buffers on from one to the next.

One reads and hashes, one does the arithmetic, one hashes what came out, two write. What is in memory at a time is a
handful of pieces of a few MiB, whatever the model's size. All spend their time outside Python's lock (reading, hashing,
torch, writing), so two cores and the disk are busy with one shard.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from nift_training import shards
from nift_training.merge.adapters import LowRankUpdate, ReplacementTensor
from nift_training.shards import Shard, Tensor

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 8 * 2**20
PIECES = 6
WRITERS = 2  # a disk took 1.4 GB/s from two at a time and 1.0 from one
T = TypeVar("T")
BLOCK = 4096
"""What a disk wants addresses and sizes to be a multiple of when nothing is to stand between it and memory."""
# Both float32 blocks stay in the core's own cache. Rows of the product lie a cache line further apart than they are
# long: where that is a power of two they would push one another out, and the product would take twice as long.
BLOCK_NUMBERS = 128 * 1024
APART = 16


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """One shard as it was written: its name, its size, the hash of what was written, and if asked of what was read."""

    name: str
    bytes: int
    sha256: str
    source_sha256: str | None


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


def rewrite(
    shard: Shard,
    changes: Mapping[str, LowRankUpdate | ReplacementTensor],
    adapter: Path,
    out: Path,
    *,
    hash_source: bool,
) -> WrittenShard:
    """Writes the shard with its changed tensors to `out`; to flush it is the caller's part.

    ValueError for a tensor that is not finite afterwards, OSError for a disk that is full.
    """
    pieces = list(_pieces(shard))
    empty, read, changed = _Station[mmap.mmap](), _Station[mmap.mmap](), _Station[mmap.mmap]()
    hashed = _Station[tuple[int, int, mmap.mmap]]()
    before, after = hashlib.sha256(), hashlib.sha256()
    widest = max(piece.bytes for piece in pieces)
    for _ in range(min(PIECES, len(pieces))):
        empty.put(mmap.mmap(-1, widest + BLOCK))

    def reading() -> None:
        with shard.path.open("rb", buffering=0) as file:
            for piece in pieces:
                buffer = empty.take()
                _fill(file, piece.of(buffer), shard.path)
                if hash_source:
                    before.update(piece.of(buffer))
                read.put(buffer)

    def changing() -> None:
        merging = _Merging(changes, adapter)
        for piece in pieces:
            buffer = read.take()
            merging.change(piece, buffer)
            changed.put(buffer)

    def hashing() -> None:
        unhashed = b""  # the end of the piece before, which did not fill a block
        for piece in pieces:
            buffer = changed.take()
            after.update(piece.of(buffer))
            buffer[: piece.inset] = unhashed
            end = piece.inset + piece.bytes
            whole_blocks = end // BLOCK * BLOCK
            unhashed = buffer[whole_blocks:end]
            hashed.put((piece.start - piece.inset, whole_blocks, buffer))
        if unhashed:
            last = mmap.mmap(-1, BLOCK)
            last[: len(unhashed)] = unhashed
            hashed.put((shard.bytes // BLOCK * BLOCK, BLOCK, last))
        hashed.put(None)

    def writing() -> None:
        while True:
            place, count, buffer = hashed.take()
            _drain(file, memoryview(buffer)[:count], place)
            empty.put(buffer)

    with _written_through(out) as file:
        _together([changing, reading, hashing, *[writing] * WRITERS], [empty, read, changed, hashed])
        os.ftruncate(file, shard.bytes)
    return WrittenShard(
        name=shard.path.name,
        bytes=shard.bytes,
        sha256=after.hexdigest(),
        source_sha256=before.hexdigest() if hash_source else None,
    )


class _Merging:
    """The arithmetic of one shard, with the matrices of the tensor at hand and two float32 blocks that are reused."""

    def __init__(self, changes: Mapping[str, LowRankUpdate | ReplacementTensor], adapter: Path) -> None:
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
        saved = change.tensor if isinstance(change, ReplacementTensor) else change.onto if change else None
        if saved is not None:
            of_row = tensor.numbers // tensor.shape[0]
            rows = shards.rows(self.adapter, saved, piece.first // of_row, len(numbers) // of_row)
            numbers.copy_(rows.flatten())
        if isinstance(change, LowRankUpdate):
            if tensor is not self.tensor:
                self.left, self.right = matrices(self.adapter, change)
                self.tensor = tensor
            weight = numbers.view(-1, tensor.shape[1])
            first = piece.first // tensor.shape[1]
            add_product(weight, self.left[first : first + len(weight)], self.right, change.scale)


def matrices(adapter: Path, change: LowRankUpdate) -> tuple[torch.Tensor, torch.Tensor]:
    """The two matrices of a LoRA layer in float32, the first with the rows of W and the second with its columns."""
    left, right = (shards.rows(adapter, tensor).float() for tensor in (change.left, change.right))
    return (left.T.contiguous(), right.T.contiguous()) if change.flipped else (left, right)


def add_product(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """W += scale·(left·right) in place, computed in float32 in peft's order and rounded once to the type of W."""
    import torch

    columns = weight.shape[1]
    height = max(1, BLOCK_NUMBERS // columns)
    product, wide = torch.empty(height, columns + APART)[:, :columns], torch.empty(height, columns)
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
    """Whether no number is infinite or none: both show in the least and the most, which are found 25 times as fast."""
    import torch

    return all(math.isfinite(end) for end in torch.aminmax(numbers))


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
    """This thread has nothing left to do: nothing more comes, or another of them has failed."""


class _Station(SimpleQueue[T | None]):
    """Where one thread leaves buffers for the next; None ends all that take from it."""

    def take(self) -> T:
        if (item := self.get()) is None:
            self.put(None)
            raise _Stopped
        return item


def _together(tasks: list[Callable[[], None]], stations: Sequence[_Station[Any]]) -> None:
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


def _drain(file: int, content: memoryview, place: int) -> None:
    while content:
        try:
            count = os.pwrite(file, content, place)
        except OSError as refusal:
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            if refusal.errno != errno.EINVAL or not flags & getattr(os, "O_DIRECT", 0):
                raise
            fcntl.fcntl(file, fcntl.F_SETFL, flags & ~os.O_DIRECT)  # a disk of larger blocks
        else:
            content, place = content[count:], place + count


def _fill(file: Any, content: memoryview, path: Path) -> None:
    while content:
        if not (count := file.readinto(content)):
            raise ValueError(f"{path} has become shorter while it was read: download it again")
        content = content[count:]
