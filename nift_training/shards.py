"""Safetensors files: what each holds and where, read from its header alone.

Headers come from downloads, so nothing in them is believed before it is checked: offsets stay inside the file and meet
without a gap.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import large_files

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}\.safetensors")
MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The types whose tensors are checked to be finite, and what torch calls them."""
SAMPLES, SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a file: its name, safetensors' name of its type, its shape, and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file: its path, its size, where its tensors begin, and they in the order of their bytes."""

    path: Path
    bytes: int
    start: int
    tensors: tuple[Tensor, ...]


def read(path: Path) -> Shard:
    """What a safetensors file holds. ValueError for a file whose header does not describe exactly its bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(len(large_files.POINTER))
        if large_files.is_pointer(beginning):
            raise ValueError(f"{path} {large_files.REMEDY}")
        length = int.from_bytes(beginning[:8], "little")
        file.seek(8)
        if not 2 <= length <= min(MOST_HEADER_BYTES, size - 8):
            raise ValueError(f"{path} has a header of {length} bytes in a file of {size}: download it again")
        try:
            entries: dict[str, Any] = json.loads(file.read(length))
            tensors = [_tensor(name, entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as mistake:
            raise ValueError(f"{path} has a header that cannot be read ({mistake!r}): download it again") from None
    place = 8 + length
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        bits = tensor.numbers * BITS[tensor.dtype]
        if tensor.start != place or tensor.end - tensor.start != bits // 8:
            raise ValueError(f"{path} has {tensor.name} at bytes that are not its own: download it again")
        place = tensor.end
    if place != size:
        raise ValueError(f"{path} has {size} bytes and its header describes {place}: download it again")
    return Shard(
        path=path, bytes=size, start=8 + length, tensors=tuple(sorted(tensors, key=lambda tensor: tensor.start))
    )


def fingerprint(shards_of_model: Sequence[Shard]) -> str:
    """A digest of headers and of bytes sampled all over the shards: it tells models apart without reading 140 GB.

    Two trainings differ in nearly every tensor, so 64 places of each file are enough for that. A flipped byte is for
    the manifest's sha256 to find.
    """
    hashed = hashlib.sha256()
    for shard in shards_of_model:
        draw = random.Random(f"{shard.path.name} {shard.bytes}")
        with shard.path.open("rb") as file:
            hashed.update(file.read(shard.start))
            for _ in range(SAMPLES):
                file.seek(draw.randrange(shard.start, max(shard.bytes - SAMPLE_BYTES, shard.start) + 1))
                hashed.update(file.read(SAMPLE_BYTES))
    return hashed.hexdigest()


def rows(path: Path, tensor: Tensor, first: int = 0, count: int | None = None) -> torch.Tensor:
    """Some rows of a tensor, all by default, in its own type, read and not mapped: a mapped page counts as memory."""
    import torch

    of_row = (tensor.end - tensor.start) // tensor.shape[0]
    count = tensor.shape[0] - first if count is None else count
    with path.open("rb") as file:
        file.seek(tensor.start + first * of_row)
        content = bytearray(file.read(count * of_row))
    return torch.frombuffer(content, dtype=getattr(torch, FLOATS[tensor.dtype])).view(count, *tensor.shape[1:])


def _tensor(name: str, entry: dict[str, Any], start: int) -> Tensor:
    if entry["dtype"] not in BITS:
        raise ValueError(f"{name} has the unknown type {entry['dtype']}")
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"{name} has sizes or offsets that are not counts")
    return Tensor(name=name, dtype=entry["dtype"], shape=shape, start=start + begin, end=start + end)
