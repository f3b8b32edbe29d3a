"""How requests are cut into chunks: one model each, within the provider's limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChunkItem:
    """A request that is to go into a chunk: its size there, and the most it can cost."""

    key: str
    model: str
    size: int
    amount: int = 0


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """The chunks in the order of the requests, and the requests that are too large for any."""

    chunks: Sequence[Sequence[ChunkItem]]
    too_large: Sequence[ChunkItem]


def plan_chunks(items: Iterable[ChunkItem], most_requests: int, most_bytes: int) -> ChunkPlan:
    """Chunks of one model each within both limits, as far as possible of different sizes.

    A provider that lets us attach no name to a batch shows how many requests are in it: by that a chunk is found again.
    """
    by_model: dict[str, list[ChunkItem]] = {}
    too_large = []
    for item in items:
        if item.size > most_bytes:
            too_large.append(item)
        else:
            by_model.setdefault(item.model, []).append(item)
    chunks: list[list[ChunkItem]] = []
    sizes: set[int] = set()
    for waiting in by_model.values():
        start = 0
        while start < len(waiting):
            count = _different(_fitting(waiting, start, most_requests, most_bytes), sizes)
            sizes.add(count)
            chunks.append(waiting[start : start + count])
            start += count
    return ChunkPlan(chunks=chunks, too_large=too_large)


def _fitting(waiting: Sequence[ChunkItem], start: int, most_requests: int, most_bytes: int) -> int:
    """How many of the items from `start` on fit into one chunk."""
    size = 0
    for count in range(min(most_requests, len(waiting) - start)):
        size += waiting[start + count].size
        if size > most_bytes:
            return count
    return min(most_requests, len(waiting) - start)


def _different(count: int, sizes: Collection[int]) -> int:
    """The largest size up to this one that no other chunk has; this one where all are taken."""
    return next((size for size in range(count, 0, -1) if size not in sizes), count)
