"""What each filter of the study would drop of each teacher, with the reason: a table per filter, `<name>_removals`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from nift_assets import filters, sql
from nift_assets.assets import sql_models
from nift_assets.benchmarks import files
from nift_assets.rows import Filter, without_places
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import Made, Step, table


def declare(row: Filter) -> Step:
    """The step of a filter written in Python; its file, its options and the benchmarks' questions make it stale."""

    @table(
        filters.table(row),
        group="completions",
        kinds={"python", "polars"},
        inputs=("completions", "halves"),
        by="teacher",
        rows=lambda key, table: (row, *_questions(row)),
        plugins=lambda key, table: (filters.module(row),),
        metadata={"drops": dg.MetadataValue.md(filters.module(row).__doc__ or "")},
        follows=True,
    )
    def run(context: dg.AssetExecutionContext, completions: pl.DataFrame, halves: pl.DataFrame) -> Made:
        removed = filters.run(row, completions, halves, STUDY.benchmarks)
        return Made(removed.rows, metadata={"removed": removed.rows.height, **removed.metadata})

    return run


def _questions(row: Filter) -> Sequence[Any]:
    if not filters.reads_benchmarks(row):
        return ()
    # Files that are not there yet make the table stale when they come.
    there = [Path(benchmark.location).exists() for benchmark in STUDY.benchmarks]
    return [
        files.fingerprint(benchmark) if exists else without_places(benchmark)
        for benchmark, exists in zip(STUDY.benchmarks, there, strict=True)
    ]


for _row in STUDY.filters:
    if filters.is_sql(_row):
        sql_models.declare(sql.compile(filters.table(_row)))
    else:
        declare(_row)
