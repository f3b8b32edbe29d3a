"""Every sampled document cut in two at a random word of its middle half."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from expectations.frames import portions
from nift_assets.corpus import halves as cutting
from nift_assets.steps.context import Context
from nift_assets.steps.table import table


@table(
    group="data",
    kinds={"python", "polars"},
    inputs=("raw_sample",),
    rows=lambda study, key, table: (study.corpus.seed,),
    streams=True,
)
def halves(context: Context) -> Iterator[pl.DataFrame]:
    for portion in portions(context.store.table("raw_sample")):
        yield cutting.halve(portion, seed=context.study.corpus.seed)
