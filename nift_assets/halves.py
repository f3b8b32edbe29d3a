"""Cutting a document in two, as section 3 of the paper does: at a word drawn uniformly from its middle half."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from nift_assets import words

# The same characters as str.split(): every Unicode white space, so that counting and cutting agree on what a word is.
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Halves:
    """A document cut in two: `first + second` is the document, `first` ends with its word number `cut` of `words`."""

    words: int
    cut: int
    first: str
    second: str


def cut(text: str, *, document_id: str, seed: int) -> Halves | None:
    """The two halves of one document, or None for one of fewer than two words, which has no place to be cut.

    The cut index k is uniform in {ceil(n/4) … floor(3n/4)} for n white-space separated words (section 3 of the
    paper: "uniformly sampled from between the first and the last quarter of the article, measured by word count").
    The white space after word k opens the second half, so no byte is lost and a teacher's prompt ends in a word.

    This is the rule as it reads; `halve` is the same for a whole table, several times faster.
    """
    number = len(text.split())
    if number < 2:
        return None
    index = draw_word(number, document_id=document_id, seed=seed)
    at = _end_of_word(text, index)
    return Halves(words=number, cut=index, first=text[:at], second=text[at:])


def draw_word(number: int, *, document_id: str, seed: int) -> int:
    """The number of the word behind which a document of `number` words is cut, counted from 1."""
    low, high = math.ceil(number / 4), math.floor(3 * number / 4)
    return low + draw(document_id, seed=seed, choices=high - low + 1)


def draw(document_id: str, *, seed: int, choices: int) -> int:
    """A number in 0 … choices-1 that depends on the seed and this document alone, uniform up to 2**-64."""
    hashed = hashlib.blake2b(f"{seed}\0{document_id}".encode(), digest_size=8, person=b"nift.halves")
    return int.from_bytes(hashed.digest(), "big") * choices >> 64


def halve(raw_sample: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """One row per document that can be cut; the others are the rows of `halves_rejects`.

    The halves are views of the texts they are cut from, so 400 MB of text are held once.
    """
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
    placed = raw_sample.select(
        "document_id",
        "sample_rank",
        pl.Series("words", number),
        pl.Series("cut", index),
        pl.Series("at", at),
        "text",
    ).filter(pl.col("words") >= 2)
    return placed.select(
        "document_id",
        "sample_rank",
        "words",
        "cut",
        first_half=pl.col("text").str.head(pl.col("at")),
        second_half=pl.col("text").str.slice(pl.col("at")),
    )


def _end_of_word(text: str, index: int) -> int:
    found = WORD.finditer(text)
    for _ in range(index - 1):
        next(found)
    return next(found).end()
