"""What each filter of the study would drop of each teacher, with the reason: a table per filter, `<name>_removals`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from nift_assets import benchmarks as registry
from nift_assets import filters, sql
from nift_assets.assets import sql_models
from nift_assets.benchmarks.scoring import files
from nift_assets.rows import Benchmark, Filter, without_places
from nift_assets.steps.context import Context
from nift_assets.steps.table import Declaration, Makes, TableOutput, table
from nift_assets.study import Study


def steps(study: Study) -> list[Declaration]:
    """The step of each filter that the study has a row for."""
    return [_declared(row) for row in study.filters]


def _declared(row: Filter) -> Declaration:
    if filters.is_sql(row):
        return sql_models.declare(sql.compile(filters.table(row), filters.sql_file(row.file)))
    if filters.reads_reviews(row):
        return declare_by_people(row)
    return declare_in_order(row) if filters.remembers(row) else declare(row)


def _table(row: Filter, **otherwise: Any) -> Callable[[Makes], Declaration]:
    """The table of a filter written in Python; its file, its options and the benchmarks' questions make it stale."""
    declared: dict[str, Any] = {
        "group": "completions",
        "kinds": {"python", "polars"},
        "inputs": ("completions", "halves"),
        "by": "teacher",
        "portioned_by": "sample_rank" if filters.judges_alone(row) else None,
        "adds_up": ("removed", *filters.adds_up(row)),
        "rows": lambda study, key, table: (without_places(row), *_questions(row, study.benchmarks)),
        "plugins": lambda study, key, table: (filters.module(row), *_asked(row, study.benchmarks)),
        "metadata": {"drops": dg.MetadataValue.md(filters.module(row).__doc__ or "")},
        "follows": True,
    }
    return table(filters.table(row), **{**declared, **otherwise})


def declare(row: Filter) -> Declaration:
    """The step of a filter written in Python."""

    @_table(row)
    def run(context: Context, completions: pl.DataFrame, halves: pl.DataFrame) -> TableOutput:
        removed = filters.run(row, completions, halves, context.study.benchmarks)
        return TableOutput(removed.rows, metadata={"removed": removed.rows.height, **removed.metadata})

    return run


def declare_in_order(row: Filter) -> Declaration:
    """The step of a filter that looks back at earlier documents, a portion of them after the other."""

    @_table(row, streams=True)
    def run(context: Context) -> TableOutput:
        told: dict[str, Any] = {"removed": 0}

        def counted() -> Iterator[pl.DataFrame]:
            portions = context.inputs.portions("sample_rank")
            for removed in filters.run_in_order(row, portions, context.study.benchmarks):
                told["removed"] += removed.height
                yield removed

        return TableOutput(counted(), told)

    return run


def declare_by_people(row: Filter) -> Declaration:
    """The step of a filter that reads what people have said: the tables of its teachers alone are stale once somebody
    has said something else."""

    @_table(
        row,
        inputs=("completions", "halves", filters.REVIEWS),
        rows=lambda study, key, table: (row,),
        plugins=lambda study, key, table: (filters.module(row),),
    )
    def run(context: Context, completions: pl.DataFrame, halves: pl.DataFrame, reviews: pl.DataFrame) -> TableOutput:
        of_teacher = reviews.filter(pl.col("teacher") == context.key)
        with_reviews = replace(row, options={**row.options, filters.REVIEWS: of_teacher})
        removed = filters.run(with_reviews, completions, halves, ())
        return TableOutput(removed.rows, metadata={"removed": removed.rows.height, **removed.metadata})

    return run


def _asked(row: Filter, benchmarks: Sequence[Benchmark]) -> Sequence[Callable[..., Any]]:
    """What reads the questions of the benchmarks, for a filter that looks for them."""
    return [registry.load(row.name).questions for row in benchmarks] if filters.reads_benchmarks(row) else []


def _questions(row: Filter, benchmarks: Sequence[Benchmark]) -> Sequence[Any]:
    if not filters.reads_benchmarks(row):
        return ()
    # Files that are not there yet make the table stale when they come.
    present = [Path(benchmark.location).exists() for benchmark in benchmarks]
    return [
        files.fingerprint(benchmark) if exists else without_places(benchmark)
        for benchmark, exists in zip(benchmarks, present, strict=True)
    ]
