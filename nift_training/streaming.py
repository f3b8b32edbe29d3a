"""A merged shard written while its base's shard is read: reading, arithmetic and writing overlap on three threads.

What is in memory at a time is a handful of pieces of a few MiB, whatever the model's size. All three threads spend
their time outside Python's lock (reading, hashing, torch, writing), so two cores are busy with one shard.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
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
FLUSH_BYTES = 64 * 2**20
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


def rewrite(shard: Shard, changes: Mapping[str, Low | Whole], adapter: Path, out: Path) -> Written:
    """Writes the shard with its changed tensors to `out`; to `flush` it is the caller's part.

    ValueError for a tensor that is not finite afterwards, OSError for a disk that is full.
    """
    pieces = list(_pieces(shard))
    widest = max(piece.bytes for piece in pieces)
    empty: Queue[torch.Tensor | None] = Queue()
    filled: Queue[torch.Tensor | None] = Queue()
    done: Queue[tuple[torch.Tensor, int] | None] = Queue()
    failures: list[BaseException] = []
    hashes = {"read": hashlib.sha256(), "written": hashlib.sha256()}
    for _ in range(min(PIECES, len(pieces))):
        empty.put(_buffer(widest))

    def read() -> None:
        with shard.path.open("rb", buffering=0) as file:
            for piece in pieces:
                if (buffer := empty.get()) is None:
                    return
                content = memoryview(buffer.numpy().data)[: piece.bytes]
                _fill(file, content, shard.path)
                hashes["read"].update(content)
                filled.put(buffer)

    def write() -> None:
        begun = 0
        with out.open("wb", buffering=0) as file:
            while (item := done.get()) is not None:
                content = memoryview(item[0].numpy().data)[: item[1]]
                _drain(file, content)
                hashes["written"].update(content)
                empty.put(item[0])
                if file.tell() - begun >= FLUSH_BYTES:
                    begun = _begin_flush(file, begun)

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as failure:  # raised again by the thread that started this one
            failures.append(failure)
            empty.put(None)
            filled.put(None)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in (read, write)]
    for thread in threads:
        thread.start()
    try:
        merging = _Merging(changes, adapter)
        for piece in pieces:
            if (buffer := filled.get()) is None:
                break
            if piece.tensor is not None:
                merging.change(piece, buffer[: piece.bytes])
            done.put((buffer, piece.bytes))
    finally:
        empty.put(None)
        done.put(None)
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return Written(
        name=shard.path.name,
        bytes=shard.bytes,
        sha256=hashes["written"].hexdigest(),
        source_sha256=hashes["read"].hexdigest(),
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

    def change(self, piece: Piece, content: torch.Tensor) -> None:
        """Changes the bytes of a piece in place; those of an unchanged tensor are only checked."""
        import torch

        tensor = piece.tensor
        if tensor is None or tensor.dtype not in shards.FLOATS or not piece.bytes:
            return
        numbers = content.view(getattr(torch, shards.FLOATS[tensor.dtype]))
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
        if not is_finite(numbers):
            raise ValueError(f"{tensor.name} is not finite after merging: the base or the adapter is damaged")


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


def _buffer(size: int) -> torch.Tensor:
    import torch

    return torch.empty(size, dtype=torch.uint8)


def _begin_flush(file: Any, begun: int) -> int:
    """Has the system begin to write what is new to the disk, without waiting, and says up to where.

    Left alone it would begin when gigabytes are waiting, and the flush at the end would wait for all of them.
    """
    end: int = file.tell()
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file.fileno(), begun, end - begun, os.POSIX_FADV_DONTNEED)
    return end


def _fill(file: Any, content: memoryview, path: Path) -> None:
    while content:
        if not (count := file.readinto(content)):
            raise ValueError(f"{path} has become shorter while it was read: download it again")
        content = content[count:]


def _drain(file: Any, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]
