"""Every file of `sql/` as a table of the graph, with what it refers to as its inputs; so too every filter in SQL."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg
import polars as pl

from expectations import contract
from expectations.frames import schema
from nift_assets import filters, sql
from nift_assets.pages import plots
from nift_assets.rows import PLACES
from nift_assets.sql import REMOVALS
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import Made, Step, table

REMOVAL_TABLES = {row.name: filters.table(row) for row in STUDY.filters}


def declare(model: sql.Model) -> Step:
    """The step that runs one SQL model; an edit of the SQL makes it stale.

    A model with `config(plot='funnel')` shows the picture `plots.funnel` draws of its rows.
    """
    study_rows = {f"{sql.STUDY_PREFIX}{rows}": sql.study_rows(STUDY, rows) for rows in model.studies}
    inputs = [name for ref in model.refs for name in (REMOVAL_TABLES.values() if ref == REMOVALS else [ref])]
    plot = model.config.get("plot")
    draw = getattr(plots, plot) if plot else None

    @table(
        model.name,
        group=model.config["group"],
        kinds={"sql", "duckdb"},
        inputs=inputs,
        by=model.config.get("by"),
        rows=lambda key, table: [frame.drop(PLACES, strict=False).rows() for frame in study_rows.values()],
        statement=model.sql,
        metadata={"sql": dg.MetadataValue.md(f"```sql\n{model.sql}\n```")},
        follows=True,
    )
    def run(context: dg.AssetExecutionContext, **frames: pl.DataFrame) -> Made:
        partition = context.partition_key if model.config.get("by") else None
        made = sql.run(model, {**frames, **study_rows, **removals(frames)}, partition)
        if plot is None or draw is None:
            return Made(made)
        return Made(made, metadata={plot: dg.MetadataValue.md(plots.as_markdown(draw(made), plot))})

    return run


def removals(frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """What all filters would drop, by the name models and contracts have for it, if all their tables are given.

    It has the columns that these share.
    """
    if not set(REMOVAL_TABLES.values()) <= frames.keys():
        return {}
    shared = schema(contract.load(REMOVALS))
    tables = [frames[name].select(list(shared)) for name in REMOVAL_TABLES.values()]
    return {REMOVALS: pl.concat([pl.DataFrame(schema=shared), *tables])}


for _name in sql.names():
    declare(sql.compile(_name))
