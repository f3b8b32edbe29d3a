"""Drops a completion that is, word for word, the completion of an earlier document.

Why: a teacher that answers many articles with one sentence teaches that sentence. The first document by sample order
keeps it, so a smaller sample keeps what a larger one keeps. Example: the second "I'm sorry, but I can't help with
that." Case and white space make no difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import polars as pl


def removals(portions: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Of each portion one row per completion that an earlier document has, in sample order, with that document."""
    words = pl.col("completion").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    first_with: dict[bytes, str] = {}
    for candidates in portions:
        texts = candidates.select("document_id", words).iter_rows()
        first = [first_with.setdefault(_digest(text), document_id) for document_id, text in texts]
        yield (
            candidates.select("document_id", pl.Series("first", first, dtype=pl.String))
            .filter(pl.col("document_id") != pl.col("first"))
            .select("document_id", pl.format("the completion of {} too", "first").alias("reason"))
        )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
