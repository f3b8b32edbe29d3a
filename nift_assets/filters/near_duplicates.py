"""Drops a document that shares most of its phrases with an earlier one, whatever was changed between them.

Why: reposts of one article, or a teacher that falls into one story, count several times in training. The text is the
whole training text, first half and completion; its phrases are all runs of five words, or of three signs of a script
that has no spaces between words. Candidates are found by MinHash with locality-sensitive hashing and then compared
phrase by phrase, so nothing is dropped by an estimate. An earlier document that is itself dropped takes nobody along.
Example: two agency reports that differ in the headline.

MinHash is rensa's: for 1,440 web articles it takes 0.04 CPU s where datasketch takes 0.98, with the same error (0.02).
"""

from __future__ import annotations

import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nift_assets import writing_systems

PHRASE, SIGNS = 5, 3
SEED = 42
# 32 bands of 4 rows: of two texts that share 80% of their phrases fewer than one in ten million pairs is missed, and
# what shares 30% is looked at in one case out of four. Of two that share half of them one pair in eight is missed.
HASHES, BANDS = 128, 32
# Documents whose phrases are in memory at once, which takes twenty times the place of their texts.
AT_ONCE = 500
# Hashes are kept apart by their first bits, so that no more than a part of them is sorted at once.
BUCKET_BITS = 6


def removals(portions: Iterable[pl.DataFrame], *, threshold: float = 0.8) -> Iterator[pl.DataFrame]:
    """Of each portion one row per document whose Jaccard similarity to an earlier kept one is at least `threshold`,
    with that one."""
    with _Kept() as kept:
        for candidates in portions:
            duplicates = [
                duplicate
                for start in range(0, candidates.height, AT_ONCE)
                for duplicate in _duplicates(candidates.slice(start, AT_ONCE), kept, threshold)
            ]
            yield pl.DataFrame(duplicates, schema={"document_id": pl.String, "reason": pl.String}, orient="row")


def phrases(text: str) -> set[str]:
    """All runs of five words in lower case, of three signs of a script without spaces; of a shorter text the whole."""
    words = writing_systems.words(text)
    signs = list(map(writing_systems.is_unspaced, words))
    shortest = SIGNS if any(signs) else PHRASE
    return {
        " ".join(words[start : start + (SIGNS if any(signs[start : start + SIGNS]) else PHRASE)])
        for start in range(max(1, len(words) - shortest + 1))
    }


def _duplicates(candidates: pl.DataFrame, kept: _Kept, threshold: float) -> Iterator[tuple[str, str]]:
    texts = [writing_systems.joined(*halves) for halves in candidates.select("first_half", "completion").iter_rows()]
    documents = list(zip(candidates["document_id"].to_list(), texts, strict=True))
    phrases_of = [phrases(text) for text in texts]
    bands = _bands(phrases_of)
    alike_before = kept.alike(bands)
    # Which of these are kept is known one after the other.
    by_band: dict[int, list[int]] = {}
    kept_here: list[int] = []
    for place, (document_id, _) in enumerate(documents):
        alike_here = {other for band in bands[place].tolist() for other in by_band.get(band, ())}
        # In sample order, so that of several that are alike the earliest is named.
        earlier = chain(
            map(kept.read, sorted(alike_before.get(place, ()))), (documents[other] for other in sorted(alike_here))
        )
        shares = ((name, _jaccard(phrases_of[place], phrases(text))) for name, text in earlier)
        twin = next(((name, share) for name, share in shares if share >= threshold), None)
        if twin is None:
            kept_here.append(place)
            for band in bands[place].tolist():
                by_band.setdefault(band, []).append(place)
        else:
            yield document_id, f"shares {twin[1]:.0%} of its phrases with {twin[0]}"
    kept.add([documents[place] for place in kept_here], bands[kept_here])


def _bands(phrases_of: Sequence[set[str]]) -> NDArray[np.uint64]:
    """The hash of each band of each document's sketch; two of the same place and hashes have the same."""
    from rensa import RMinHash

    digests = np.empty((len(phrases_of), HASHES), dtype=np.uint64)
    for place, mine in enumerate(phrases_of):
        sketch = RMinHash(num_perm=HASHES, seed=SEED)
        sketch.update(mine)
        digests[place] = sketch.digest()
    rows = digests.reshape(len(phrases_of), BANDS, HASHES // BANDS)
    mixed = np.broadcast_to(np.arange(BANDS, dtype=np.uint64), rows.shape[:2]).copy()
    for row in range(rows.shape[2]):
        # splitmix64, which spreads what differs in any bit over all of them.
        mixed = (mixed ^ rows[:, :, row]) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class _Run:
    """Hashes in their order, and the number of the document that each is of."""

    hashes: NDArray[np.uint64]
    numbers: NDArray[np.uint32]

    def with_later(self, later: _Run) -> _Run:
        hashes = np.concatenate([self.hashes, later.hashes])
        order = np.argsort(hashes, kind="stable")
        return _Run(hashes[order], np.concatenate([self.numbers, later.numbers])[order])


class _Kept(AbstractContextManager["_Kept"]):
    """The documents that are kept: their names and texts in a temporary file, and the hashes of their bands.

    A million documents take 400 MB of hashes. They lie in sorted runs, of which two of like length become one.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="nift-")  # noqa: SIM115  closed on leaving
        self._ends = array("Q", [0])
        self._runs: list[list[_Run]] = [[] for _ in range(2**BUCKET_BITS)]

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, documents: Sequence[tuple[str, str]], bands: NDArray[np.uint64]) -> None:
        first = len(self._ends) - 1
        self._file.seek(self._ends[-1])
        for name, text in documents:
            content = zlib.compress(f"{name}\n{text}".encode(), level=1)
            self._file.write(content)
            self._ends.append(self._ends[-1] + len(content))
        numbers = np.repeat(np.arange(first, first + len(documents), dtype=np.uint32), BANDS)
        for bucket, places in _by_bucket(bands.ravel()):
            hashes = bands.ravel()[places]
            order = np.argsort(hashes, kind="stable")
            runs = self._runs[bucket]
            runs.append(_Run(hashes[order], numbers[places][order]))
            while len(runs) > 1 and len(runs[-2].hashes) < 2 * len(runs[-1].hashes):
                later = runs.pop()
                runs[-1] = runs[-1].with_later(later)

    def alike(self, bands: NDArray[np.uint64]) -> dict[int, set[int]]:
        """The numbers of the kept documents that have a band in common with each of these, by its place."""
        alike: dict[int, set[int]] = {}
        for bucket, places in _by_bucket(bands.ravel()):
            wanted = bands.ravel()[places]
            for run in self._runs[bucket]:
                low, high = (run.hashes.searchsorted(wanted, side=side) for side in ("left", "right"))
                for hit in np.flatnonzero(high > low):
                    alike.setdefault(int(places[hit]) // BANDS, set()).update(
                        run.numbers[low[hit] : high[hit]].tolist()
                    )
        return alike

    def read(self, number: int) -> tuple[str, str]:
        """The name and the text of a kept document."""
        self._file.seek(self._ends[number])
        content = zlib.decompress(self._file.read(self._ends[number + 1] - self._ends[number])).decode()
        name, _, text = content.partition("\n")
        return name, text


def _by_bucket(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The places of the hashes of each bucket that has any."""
    buckets = (hashes >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
    order = np.argsort(buckets, kind="stable")
    starts = np.searchsorted(buckets[order], np.arange(2**BUCKET_BITS + 1))
    for bucket, (start, end) in enumerate(pairwise(starts.tolist())):
        if end > start:
            yield bucket, order[start:end]


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)
