"""Cutting a document in two, as section 3 of the paper does: at a word drawn uniformly from its middle half."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nift_assets.corpus import units, words
from nift_assets.rows import Unit

INLINE_BYTES = 12


@dataclass(frozen=True)
class Halves:
    """A document cut in two: `first + second` is the document, `first` ends with its word number `cut` of `words`, or
    with its sentence, where it is cut at those."""

    words: int
    cut: int
    first: str
    second: str


def cut(text: str, *, document_id: str, seed: int, cut_at: Unit = "spaces") -> Halves | None:
    """The two halves of one document, or None for one of fewer than two words, which has no place to be cut.

    The cut index k is uniform in {ceil(n/4) … floor(3n/4)} for n white-space separated words (section 3 of the
    paper: "uniformly sampled from between the first and the last quarter of the article, measured by word count").
    The white space after word k opens the second half, so no byte is lost and a teacher's prompt ends in a word.

    Where the corpus is cut at something else than spaces its units take the place of words.

    This is the rule as it reads; `halve` is the same for a whole table, several times faster.
    """
    ends = units.ends(text, cut_at)
    if len(ends) < 2:
        return None
    index = draw_word(len(ends), document_id=document_id, seed=seed)
    at = ends[index - 1]
    return Halves(words=len(ends), cut=index, first=text[:at], second=text[at:])


def draw_word(number: int, *, document_id: str, seed: int) -> int:
    """The number of the word behind which a document of `number` words is cut, counted from 1."""
    low, high = math.ceil(number / 4), math.floor(3 * number / 4)
    return low + draw(document_id, seed=seed, choices=high - low + 1)


def draw(document_id: str, *, seed: int, choices: int) -> int:
    """A number in 0 … choices-1 that depends on the seed and this document alone, uniform up to 2**-64."""
    hashed = hashlib.blake2b(f"{seed}\0{document_id}".encode(), digest_size=8, person=b"nift.halves")
    return int.from_bytes(hashed.digest(), "big") * choices >> 64


def halve(raw_sample: pl.DataFrame, *, seed: int, cut_at: Unit = "spaces") -> pl.DataFrame:
    """One row per document that can be cut; the others are the rows of `halves_rejects`.

    The halves are views of the texts they are cut from, so 400 MB of text are held once.
    """
    number, index, at = (_cuts if cut_at == "spaces" else _cuts_of)(raw_sample, seed, cut_at)
    cuttable = raw_sample.select(
        "document_id", "sample_rank", "text", words=pl.Series(number), cut=pl.Series(index), at=pl.Series(at)
    ).filter(pl.col("words") >= 2)
    first, second = _cut_at(cuttable["text"], cuttable["at"].to_numpy())
    return cuttable.select("document_id", "sample_rank", "words", "cut", first_half=first, second_half=second)


Cuts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _cuts_of(raw_sample: pl.DataFrame, seed: int, cut_at: Unit) -> Cuts:
    """As `_cuts`, a document at a time and at any unit."""
    cuts = []
    for name, text in raw_sample.select("document_id", "text").iter_rows():
        ends = units.ends(text, cut_at)
        index = draw_word(len(ends), document_id=name, seed=seed) if len(ends) > 1 else 0
        cuts.append((len(ends), index, len(text[: ends[index - 1]].encode()) if index else 0))
    columns = np.array(cuts, dtype=np.int64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]


def _cuts(raw_sample: pl.DataFrame, seed: int, _: Unit) -> Cuts:
    """Of each document how many words it has, behind which of them it is cut, and at which byte; 0 if it is not."""
    number, index, at = (np.zeros(raw_sample.height, dtype=np.int64) for _ in range(3))
    names = raw_sample["document_id"].to_list()
    for few in words.find(raw_sample["text"]):
        rows = slice(few.row, few.row + len(few.counts))
        number[rows] = few.counts
        index[rows] = [
            draw_word(count, document_id=name, seed=seed) if count > 1 else 0
            for count, name in zip(few.counts.tolist(), names[rows], strict=True)
        ]
        at[rows] = few.ends(index[rows])
    return number, index, at


def _cut_at(texts: pl.Series, at: NDArray[np.int64]) -> tuple[pl.Series, pl.Series]:
    """Each text up to a byte of it, and from there on, as views of the memory the text lies in.

    Arrow's string view is four 32-bit numbers: a length, then for more than 12 bytes the first four of them, the number
    of a buffer and a place in it; 12 bytes and less stand in the view itself.
    """
    import pyarrow as pa

    array = texts.to_arrow(compat_level=pl.CompatLevel.newest())
    _, views, *buffers = array.buffers()
    first = np.frombuffer(views or b"", dtype=np.int32).reshape(-1, 4)[array.offset : array.offset + len(array)].copy()
    second = first.copy()
    first[:, 0], second[:, 0] = at, second[:, 0] - at
    long = second[:, 0] > INLINE_BYTES
    second[long, 3] += at[long].astype(np.int32)
    for number in np.unique(second[long, 2]):
        rows = np.flatnonzero(long & (second[:, 2] == number))
        content = np.frombuffer(buffers[number], dtype=np.uint8)
        second[rows, 1] = content[second[rows, 3, None] + np.arange(4)].view(np.int32)[:, 0]
    for half, begins, ends in ((first, 0 * at, at), (second, at, at + second[:, 0])):
        rows = np.flatnonzero(half[:, 0] <= INLINE_BYTES)
        for row, text in zip(rows.tolist(), texts.gather(rows).to_list(), strict=True):
            inside = text.encode()[begins[row] : ends[row]].ljust(INLINE_BYTES, b"\0")
            half[row, 1:] = np.frombuffer(inside, dtype=np.int32)
    arrays = (
        pa.Array.from_buffers(pa.string_view(), len(at), [None, pa.py_buffer(half), *buffers])
        for half in (first, second)
    )
    return pl.Series(next(arrays)), pl.Series(next(arrays))
