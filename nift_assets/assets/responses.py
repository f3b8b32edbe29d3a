"""How models answer, before their scores: chosen answers side by side, and how all of them end."""

from __future__ import annotations

import polars as pl

from expectations import contract
from expectations.frames import schema
from nift_assets import benchmarks
from nift_assets.benchmarks.scoring import responses as answers
from nift_assets.rows import Example
from nift_assets.steps.context import Context
from nift_assets.steps.table import table
from nift_assets.study import Study


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=lambda study: list(_answered(study).values()),
    follows=True,
)
def response_endings(context: Context, **answered: pl.DataFrame) -> pl.DataFrame:
    return answers.endings({name: answered[table] for name, table in _answered(context.study).items()})


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=lambda study: [table for name, table in _answered(study).items() if name == Example.BENCHMARK],
    rows=lambda study, key, table: study.examples,
    plugins=lambda study, key, table: (benchmarks.load(Example.BENCHMARK).questions,),
    follows=True,
)
def response_examples(context: Context, **answered: pl.DataFrame) -> pl.DataFrame:
    study, file = context.study, benchmarks.load(Example.BENCHMARK)
    table = benchmarks.answers_table(Example.BENCHMARK)
    shown = answered.get(table, pl.DataFrame(schema=schema(contract.load(table))))
    asked = file.questions(study.benchmark(Example.BENCHMARK)) if shown.height else ()
    return answers.examples(study.examples, dict(asked), shown)


def _answered(study: Study) -> dict[str, str]:
    """The tables of what is answered in words, for a judge to read."""
    judged = [row.name for row in study.benchmarks if benchmarks.is_judged(row.name)]
    return {name: benchmarks.answers_table(name) for name in judged}
