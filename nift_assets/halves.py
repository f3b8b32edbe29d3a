"""Cutting a document in two, as section 3 of the paper does: at a word drawn uniformly from its middle half."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import polars as pl

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
    """
    words = len(text.split())
    low, high = math.ceil(words / 4), math.floor(3 * words / 4)
    if words < 2:
        return None
    index = low + draw(document_id, seed=seed, choices=high - low + 1)
    at = _end_of_word(text, index)
    return Halves(words=words, cut=index, first=text[:at], second=text[at:])


def draw(document_id: str, *, seed: int, choices: int) -> int:
    """A number in 0 … choices-1 that depends on the seed and this document alone, uniform up to 2**-64."""
    hashed = hashlib.blake2b(f"{seed}\0{document_id}".encode(), digest_size=8, person=b"nift.halves")
    return int.from_bytes(hashed.digest(), "big") * choices >> 64


def halve(raw_sample: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """One row per document that can be cut; the others are the rows of `halves_rejects`."""
    rows = [
        (document_id, rank, halves.words, halves.cut, halves.first, halves.second)
        for document_id, rank, text in raw_sample.select("document_id", "sample_rank", "text").iter_rows()
        if (halves := cut(text, document_id=document_id, seed=seed))
    ]
    schema = {
        "document_id": pl.String,
        "sample_rank": pl.Int64,
        "words": pl.Int64,
        "cut": pl.Int64,
        "first_half": pl.String,
        "second_half": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _end_of_word(text: str, index: int) -> int:
    words = WORD.finditer(text)
    for _ in range(index - 1):
        next(words)
    return next(words).end()
