"""Every file of `models/` as a table of the graph, with what it refers to as its inputs."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import sql
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Step, table


def declare(model: sql.Model) -> Step:
    """The step that runs one SQL model; its version is the SQL's, so an edit makes it stale."""
    study_rows = {f"{sql.STUDY_PREFIX}{rows}": sql.study_rows(STUDY, rows) for rows in model.studies}

    @table(
        model.name,
        group=model.config["group"],
        kinds={"sql", "duckdb"},
        inputs=model.refs,
        by=model.config.get("by"),
        rows=lambda key, table: [frame.rows() for frame in study_rows.values()],
        code_version=model.code_version,
        metadata={"sql": dg.MetadataValue.md(f"```sql\n{model.sql}\n```")},
    )
    def run(context: dg.AssetExecutionContext, **frames: pl.DataFrame) -> pl.DataFrame:
        partition = context.partition_key if model.config.get("by") else None
        return sql.run(model, {**frames, **study_rows}, partition)

    return run


for _name in sql.names():
    declare(sql.compile(_name))
