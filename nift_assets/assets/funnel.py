"""How many documents reach each step for each teacher; of a filter that has not been run it says nothing."""

from __future__ import annotations

import dagster as dg
import polars as pl

from expectations import contract
from expectations.frames import schema
from nift_assets import filters, sql
from nift_assets.assets import sql_models
from nift_assets.pages import plots
from nift_assets.sql import FILTER_RUNS, FUNNEL, REMOVALS
from nift_assets.steps.context import Context, gathered
from nift_assets.steps.table import TableOutput, table
from nift_assets.store import Store
from nift_assets.study import Study

MODEL = sql.compile(FUNNEL)
# What the model reads of each table: no text, however many there are.
COUNTED = {
    "raw_sample": ("document_id",),
    "halves": ("document_id",),
    "completions": ("teacher", "document_id", "status"),
    "filtered_completions": ("teacher", "document_id"),
}
REMOVED = ("teacher", "document_id", "filter")


def _inputs(study: Study) -> list[str]:
    removals = [filters.table(row) for row in study.filters]
    named = [table for ref in MODEL.refs for table in (removals if ref in (REMOVALS, FILTER_RUNS) else [ref])]
    return list(dict.fromkeys(named))


@table(
    FUNNEL,
    kinds={"sql", "duckdb"},
    inputs=_inputs,
    streams=True,
    **sql_models.own_step(MODEL),
)
def funnel(context: Context) -> TableOutput:
    study = context.study
    given = {
        **{name: gathered(context, name, *columns) for name, columns in COUNTED.items()},
        REMOVALS: _removals(context),
        FILTER_RUNS: filter_runs(study, context.store),
    }
    counted = sql.run(MODEL, {**given, **sql.relations(study, MODEL)}, None)
    return TableOutput(
        counted, metadata={FUNNEL: dg.MetadataValue.md(plots.as_markdown(plots.funnel(counted), FUNNEL))}
    )


def _removals(context: Context) -> pl.DataFrame:
    empty = pl.DataFrame(schema=dict.fromkeys(REMOVED, pl.String))
    return pl.concat([empty, *(gathered(context, filters.table(row), *REMOVED) for row in context.study.filters)])


def filter_runs(study: Study, store: Store) -> pl.DataFrame:
    """Which filter has a stored table of which teacher, if it drops nothing too."""
    ran = [
        {"teacher": teacher.name, "filter": row.name}
        for teacher in study.teachers
        for row in study.filters
        if store.version(filters.table(row), teacher.name) is not None
    ]
    return pl.DataFrame(ran, schema=schema(contract.load(FILTER_RUNS)))
