"""Every sampled document cut in two at a random word of its middle half."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import polars as pl

from expectations.frames import portions
from nift_assets.corpus import halves as cutting
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import table


@table(
    group="data",
    kinds={"python", "polars"},
    inputs=("raw_sample",),
    rows=lambda key, table: (STUDY.corpus.seed,),
    streams=True,
)
def halves(context: dg.AssetExecutionContext) -> Iterator[pl.DataFrame]:
    for portion in portions(context.resources.store.table("raw_sample")):
        yield cutting.halve(portion, seed=STUDY.corpus.seed)
