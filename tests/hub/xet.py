"""What is sent by xet instead of git LFS: blocks of chunks, called xorbs, and lists of which of them make which file.

Written from the public specification. What clients send is unpacked and held against the sha256 they name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

ENTRY = 48
HEADER = 48
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30
NO_HASH = b"\xff" * 32
AS_IS, LZ4, GROUPED_LZ4 = range(3)


@dataclass(frozen=True)
class Chunk:
    """A piece of a file, and where it lies in its xorb, its header included."""

    content: bytes
    start: int
    stop: int


@dataclass(frozen=True)
class Term:
    """A run of chunks of a xorb, the last one excluded."""

    xorb: str
    first: int
    stop: int


@dataclass(frozen=True)
class Listed:
    """A file of a list: xet's own name for it, its sha256, and the runs of chunks it is made of, in order."""

    hash: str
    sha256: str
    terms: tuple[Term, ...]


def name(digest: bytes) -> str:
    """A hash as xet writes it: four numbers of eight bytes, the lowest first."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def chunks(xorb: bytes) -> list[Chunk]:
    """What a xorb holds; a footer ends it in some versions."""
    found, place = [], 0
    while place < len(xorb) and xorb[place] == 0:
        packed, scheme = int.from_bytes(xorb[place + 1 : place + 4], "little"), xorb[place + 4]
        size = int.from_bytes(xorb[place + 5 : place + 8], "little")
        stop = place + 8 + packed
        found.append(Chunk(_unpacked(xorb[place + 8 : stop], scheme, size), place, stop))
        place = stop
    return found


def files(shard: bytes) -> list[Listed]:
    """The files that a list names, each with its sha256."""
    entries = _entries(shard)
    found = []
    for head in entries:
        if head[:32] == NO_HASH:
            return found
        flags, number = struct.unpack("<2I", head[32:40])
        assert flags & HAS_SHA256, "the Hub knows files by their sha256"
        terms = [next(entries) for _ in range(number)]
        if flags & HAS_VERIFICATION:
            _ = [next(entries) for _ in terms]
        runs = (Term(name(term[:32]), *struct.unpack("<2I", term[40:48])) for term in terms)
        found.append(Listed(name(head[:32]), name(next(entries)[:32]), tuple(runs)))
    raise AssertionError("the list of files has no end")


def whole(terms: Sequence[Term], xorbs: dict[str, list[Chunk]]) -> Iterator[bytes]:
    """A file, chunk by chunk."""
    for term in terms:
        for chunk in xorbs[term.xorb][term.first : term.stop]:
            yield chunk.content


def reconstruction(terms: Sequence[Term], xorbs: dict[str, list[Chunk]], first: int, url: str) -> dict[str, Any]:
    """Where a client finds a file from its `first` byte on."""
    told: list[dict[str, Any]] = []
    places: dict[str, list[dict[str, Any]]] = {}
    begin = offset = 0
    for term in terms:
        run = xorbs[term.xorb][term.first : term.stop]
        size, begun = sum(len(chunk.content) for chunk in run), begin
        begin += size
        if begin <= first:
            continue
        offset = offset if told else first - begun
        numbers = {"start": term.first, "end": term.stop}
        told.append({"hash": term.xorb, "unpacked_length": size, "range": numbers})
        span = {"start": run[0].start, "end": run[-1].stop - 1}
        places.setdefault(term.xorb, []).append({"range": numbers, "url": url + term.xorb, "url_range": span})
    return {"offset_into_first_range": offset, "terms": told, "fetch_info": places}


def _entries(shard: bytes) -> Iterator[bytes]:
    for place in range(HEADER, len(shard), ENTRY):
        yield shard[place : place + ENTRY]


def _unpacked(packed: bytes, scheme: int, size: int) -> bytes:
    if scheme == AS_IS:
        return packed
    plain = bytes(pa.Codec("lz4").decompress(packed, size))
    return plain if scheme == LZ4 else _ungrouped(plain)


def _ungrouped(grouped: bytes) -> bytes:
    """Bytes in the order they had before the first of each four were put before all second ones, and so on."""
    given = np.frombuffer(grouped, np.uint8)
    content = np.empty_like(given)
    place = 0
    for start in range(4):
        count = len(content[start::4])
        content[start::4] = given[place : place + count]
        place += count
    return content.tobytes()
