"""What people have said of rows that they have read: every verdict there is so far, whoever gave it."""

from __future__ import annotations

import polars as pl

from nift_assets import reviews as verdicts
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table


@table(group="reviews", kinds={"python", "polars"}, beside=verdicts.fingerprint)
def reviews(context: Context) -> TableOutput:
    every: pl.DataFrame = verdicts.frame(verdicts.read(context.store))
    return TableOutput(every, metadata={"reviewers": every["reviewer"].n_unique()})
