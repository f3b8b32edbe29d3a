"""Every sampled document cut in two at a random word of its middle half, or sentence where the corpus says so."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from expectations.frames import portions
from nift_assets import writing_systems
from nift_assets.corpus import halves as cutting
from nift_assets.steps.context import Context
from nift_assets.steps.table import table


@table(
    group="data",
    kinds={"python", "polars"},
    inputs=("raw_sample",),
    rows=lambda study, key, table: (study.corpus.seed, study.corpus.cut_at),
    streams=True,
)
def halves(context: Context) -> Iterator[pl.DataFrame]:
    corpus, is_empty, unspaced = context.study.corpus, True, 0
    for portion in portions(context.store.table("raw_sample")):
        cut = cutting.halve(portion, seed=corpus.seed, cut_at=corpus.cut_at)
        is_empty = is_empty and cut.is_empty()
        unspaced += writing_systems.unspaced(portion["text"]) if is_empty else 0
        yield cut
    if is_empty and unspaced:
        raise ValueError(
            f"none of the articles of {corpus.location} can be cut at its spaces: they are written without spaces "
            "between words; set cut_at='words' in the corpus's row (NIFT_CUT_AT=words), or 'sentences'"
        )
