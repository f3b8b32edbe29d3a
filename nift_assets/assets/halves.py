"""Every sampled document cut in two at a random word of its middle half."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import halves as cutting
from nift_assets import words
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import table


@table(
    group="data",
    kinds={"python", "polars"},
    inputs=("raw_sample",),
    rows=lambda key, table: (STUDY.corpus.seed,),
    code=(cutting, words),
)
def halves(context: dg.AssetExecutionContext, raw_sample: pl.DataFrame) -> pl.DataFrame:
    return cutting.halve(raw_sample, seed=STUDY.corpus.seed)
