"""The pairs of each training set: SQL says which, and their texts are put to them a portion at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from nift_assets import filters, sql
from nift_assets.assets import sql_models
from nift_assets.sql import REMOVALS, TRAINING_SETS
from nift_assets.steps.context import Context
from nift_assets.steps.inputs import StoredInputs
from nift_assets.steps.table import table
from nift_assets.study import Study

MODEL = sql.compile(TRAINING_SETS)
# The text that a pair has of each table, which the model hands on and never looks at, and what it does look at.
TEXTS = {"halves": "first_half", "completions": "completion"}
LOOKED_AT = {"halves": ("document_id", "sample_rank"), "completions": ("document_id", "teacher", "status")}
REMOVED = ("document_id", "teacher", "filter")


def _inputs(study: Study) -> list[str]:
    removals = [filters.table(row) for row in study.filters]
    return [table for ref in MODEL.refs for table in (removals if ref == REMOVALS else [ref])]


@table(
    TRAINING_SETS,
    kinds={"sql", "duckdb", "polars"},
    inputs=_inputs,
    by=MODEL.config["by"],
    streams=True,
    **sql_models.own_step(MODEL),
)
def training_sets(context: Context) -> Iterator[pl.DataFrame]:
    study, inputs = context.study, context.inputs
    removed = [inputs.frame(filters.table(row), *REMOVED) for row in study.filters]
    given = {
        **{name: _without_text(inputs, name) for name in TEXTS},
        **sql.relations(study, MODEL),
        REMOVALS: pl.concat([pl.DataFrame(schema=dict.fromkeys(REMOVED, pl.String)), *removed]),
        "reference_sets": inputs.frame("reference_sets"),
    }
    pairs = sql.run(MODEL, given, context.partition.key)
    if study.training_set(context.key).reference is not None:
        yield pairs
        return
    yield pairs.clear()
    for texts in StoredInputs({name: inputs.tables[name] for name in TEXTS}).portions("sample_rank"):
        yield _with_texts(pairs, texts)


def _without_text(inputs: StoredInputs, table: str) -> pl.DataFrame:
    """What the model looks at of a table; in the place of its text stands whose it is."""
    return inputs.frame(table, *LOOKED_AT[table]).with_columns(pl.col("document_id").alias(TEXTS[table]))


def _with_texts(pairs: pl.DataFrame, texts: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The pairs whose texts these are, with them, in sample order."""
    prompts = texts["halves"].select("document_id", "sample_rank", "first_half")
    responses = texts["completions"].select("document_id", "completion")
    if prompts.is_empty():
        return pairs.clear()
    here = pairs.filter(pl.col("sample_rank").is_between(prompts["sample_rank"].min(), prompts["sample_rank"].max()))
    filled = here.join(prompts.drop("sample_rank"), on="document_id").join(responses, on="document_id")
    return (
        filled.with_columns(prompt=pl.col("first_half"), response=pl.col("completion"))
        .select(pairs.columns)
        .sort("sample_rank")
    )
