"""Every file of `sql/` as a table of the graph, with what it refers to as its inputs; so too every filter in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
import polars as pl

from expectations import contract
from expectations.frames import schema
from nift_assets import benchmarks, filters, sql
from nift_assets.pages import plots
from nift_assets.rows import PLACES
from nift_assets.sql import FUNNEL, REMOVALS, TRAINING_COSTS, TRAINING_SETS
from nift_assets.steps.context import Context
from nift_assets.steps.table import Declaration, TableOutput, table
from nift_assets.study import Study


def steps(study: Study) -> list[Declaration]:
    """The step of each SQL model, which every study has; the funnel, which reads more, has a file of its own, and so
    have those that read texts, or beside texts, which need not fit into memory."""
    own = (FUNNEL, TRAINING_SETS, TRAINING_COSTS)
    return [declare(sql.compile(name)) for name in sql.names() if name not in own]


def declare(model: sql.SqlModel) -> Declaration:
    """The step that runs one SQL model; an edit of the SQL makes it stale.

    A model with `config(plot='funnel')` shows the picture `plots.funnel` draws of its rows. One with
    `config(portioned_by='sample_rank')` judges each document alone, and is run once per portion of them.
    """
    plot = model.config.get("plot")
    draw = getattr(plots, plot) if plot else None

    @table(
        model.name,
        group=model.config["group"],
        kinds={"sql", "duckdb"},
        inputs=lambda study: [
            name
            for ref in model.refs
            for name in (_removal_tables(study) if ref == REMOVALS else [ref])
            if name not in _absent_tables(study)
        ],
        by=model.config.get("by"),
        portioned_by=model.config.get("portioned_by"),
        rows=lambda study, key, table: [
            frame.drop(PLACES, strict=False).rows() for frame in _study_rows(study.without_places(), model).values()
        ],
        statement=model.sql,
        metadata={"sql": dg.MetadataValue.md(f"```sql\n{model.sql}\n```")},
        follows=True,
    )
    def run(context: Context, **frames: pl.DataFrame) -> TableOutput:
        study = context.study
        inputs = {**frames, **absent(study), **_study_rows(study, model), **removals(study, frames)}
        rows = sql.run(model, inputs, context.partition.key)
        if plot is None or draw is None:
            return TableOutput(rows)
        return TableOutput(rows, metadata={plot: dg.MetadataValue.md(plots.as_markdown(draw(rows), plot))})

    return run


def own_step(model: sql.SqlModel) -> dict[str, Any]:
    """What a step declares that runs a SQL model in its own way: where it stands, its statement, and the study's rows
    that the model reads."""
    return {
        "group": model.config["group"],
        "rows": lambda study, key, table: [
            frame.drop(PLACES, strict=False).rows() for frame in sql.relations(study.without_places(), model).values()
        ],
        "statement": model.sql,
        "metadata": {"sql": dg.MetadataValue.md(f"```sql\n{model.sql}\n```")},
        "follows": True,
    }


def removals(study: Study, frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """What all filters would drop, by the name models and contracts have for it, if all their tables are given.

    It has the columns that these share.
    """
    tables = _removal_tables(study)
    if not set(tables) <= frames.keys():
        return {}
    shared = schema(contract.load(REMOVALS))
    return {REMOVALS: pl.concat([pl.DataFrame(schema=shared), *(frames[name].select(list(shared)) for name in tables)])}


def absent(study: Study) -> dict[str, pl.DataFrame]:
    """The tables of the benchmarks that the study does not have, without a row: SQL may name them."""
    return {name: pl.DataFrame(schema=schema(contract.load(name))) for name in _absent_tables(study)}


def results_of(study: Study, frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Which models have a result on which benchmark, by the name contracts have for it, if all results are given."""
    tables = {row.name: benchmarks.results_table(row.name) for row in study.benchmarks}
    if not set(tables.values()) <= frames.keys():
        return {}
    models = [
        frames[table].select("model").unique().with_columns(benchmark=pl.lit(name)) for name, table in tables.items()
    ]
    return {"results": pl.concat([pl.DataFrame(schema={"model": pl.String, "benchmark": pl.String}), *models])}


def _absent_tables(study: Study) -> Collection[str]:
    missing = set(benchmarks.names()) - {row.name for row in study.benchmarks}
    return benchmarks.tables(sorted(missing))


def _removal_tables(study: Study) -> list[str]:
    return [filters.table(row) for row in study.filters]


def _study_rows(study: Study, model: sql.SqlModel) -> dict[str, pl.DataFrame]:
    """The rows of the study that a model reads, by the names of their relations."""
    return {f"{sql.STUDY_PREFIX}{rows}": sql.study_rows(study, rows) for rows in model.studies}
