"""Every score there is so far: one per model and number of a benchmark, with its interval and how much is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from nift_assets import benchmarks
from nift_assets.benchmarks.scoring import scores
from nift_assets.benchmarks.scoring.answers import alike_in
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.steps import approvals, tracking
from nift_assets.steps.context import Context
from nift_assets.steps.table import table
from nift_assets.study import Study


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=lambda study: list(
        dict.fromkeys(
            table
            for row in study.benchmarks
            for table in (benchmarks.results_table(row.name), benchmarks.answers_table(row.name))
        )
    ),
    rows=lambda study, key, table: (against(study), *approvals.wanted(study)),
    plugins=lambda study, key, table: [benchmarks.load(row.name).score for row in study.benchmarks],
    follows=True,
    afterwards=lambda context, tables: tracking.send_scores(context),
)
def benchmark_scores(context: Context, **tables: pl.DataFrame) -> pl.DataFrame:
    measured = [
        measured
        for row in context.study.benchmarks
        for (model,), rows in tables[benchmarks.results_table(row.name)].group_by("model", maintain_order=True)
        for measured in scored(row.name, str(model), rows, tables[benchmarks.answers_table(row.name)])
    ]
    return scores.table(measured, against(context.study))


def scored(benchmark: str, model: str, results: pl.DataFrame, answers: pl.DataFrame) -> Sequence[Measured]:
    """What a model's results come to; where a judge was asked, with what may have fooled it."""
    measured = benchmarks.load(benchmark).score(model, results)
    if not benchmarks.is_judged(benchmark):
        return measured
    alike = alike_in(answers.filter(pl.col("model") == model))
    return [replace(one, counts={**one.counts, **alike}) for one in measured]


def against(study: Study) -> dict[str, str]:
    """The baseline row of each model that has an adapter: the row of its backbone as it is."""
    bare = {model.backbone: model.name for model in study.models if model.module == "none"}
    return {model.name: bare[model.backbone] for model in study.models if model.adapter and model.backbone in bare}
