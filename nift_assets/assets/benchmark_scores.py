"""Every score there is so far: one per model and number of a benchmark, with its interval and how much is missing."""

from __future__ import annotations

import polars as pl

from nift_assets import benchmarks
from nift_assets.benchmarks.scoring import scores
from nift_assets.steps.context import Context
from nift_assets.steps.table import table
from nift_assets.study import Study


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=lambda study: [benchmarks.results_table(row.name) for row in study.benchmarks],
    rows=lambda study, key, table: (against(study),),
    plugins=lambda study, key, table: [benchmarks.load(row.name).score for row in study.benchmarks],
    follows=True,
)
def benchmark_scores(context: Context, **results: pl.DataFrame) -> pl.DataFrame:
    measured = [
        measured
        for row in context.study.benchmarks
        for (model,), rows in results[benchmarks.results_table(row.name)].group_by("model", maintain_order=True)
        for measured in benchmarks.load(row.name).score(str(model), rows)
    ]
    return scores.table(measured, against(context.study))


def against(study: Study) -> dict[str, str]:
    """The baseline row of each model that has an adapter: the row of its backbone as it is."""
    bare = {model.backbone: model.name for model in study.models if model.module == "none"}
    return {model.name: bare[model.backbone] for model in study.models if model.adapter and model.backbone in bare}
