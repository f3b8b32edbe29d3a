"""Drops a completion that is, word for word, the completion of an earlier document.

Why: a teacher that answers many articles with one sentence teaches that sentence. The first document by sample order
keeps it, so a smaller sample keeps what a larger one keeps. Example: the second "I'm sorry, but I can't help with
that." Case and white space make no difference.
"""

from __future__ import annotations

import polars as pl


def removals(candidates: pl.DataFrame) -> pl.DataFrame:
    """One row per completion that an earlier document has, in sample order, with that document."""
    words = pl.col("completion").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return (
        candidates.with_columns(pl.col("document_id").first().over(words).alias("first"))
        .filter(pl.col("document_id") != pl.col("first"))
        .select("document_id", pl.format("the completion of {} too", "first").alias("reason"))
    )
