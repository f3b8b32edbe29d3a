"""Every score there is so far: one per model and benchmark, with its interval and how much of it is missing."""

from __future__ import annotations

import polars as pl

from nift_assets.benchmarks import scores
from nift_assets.steps.context import Context
from nift_assets.steps.table import table
from nift_assets.study import Study


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=("mt_bench_judgments", "arena_hard_judgments", "ifeval", "open_llm_leaderboard"),
    rows=lambda study, key, table: (against(study),),
    follows=True,
)
def benchmark_scores(
    context: Context,
    mt_bench_judgments: pl.DataFrame,
    arena_hard_judgments: pl.DataFrame,
    ifeval: pl.DataFrame,
    open_llm_leaderboard: pl.DataFrame,
) -> pl.DataFrame:
    return scores.table(mt_bench_judgments, arena_hard_judgments, ifeval, open_llm_leaderboard, against(context.study))


def against(study: Study) -> dict[str, str]:
    """The baseline row of each model that has an adapter: the row of its backbone as it is."""
    bare = {model.backbone: model.name for model in study.models if model.module == "none"}
    return {model.name: bare[model.backbone] for model in study.models if model.adapter and model.backbone in bare}
