"""Every score there is so far: one per model and benchmark, with its interval and how much of it is missing."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets.benchmarks import scores
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import table


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=("mt_bench_judgments", "arena_hard_judgments", "ifeval", "open_llm_leaderboard"),
    rows=lambda key, table: (against(),),
    follows=True,
)
def benchmark_scores(
    context: dg.AssetExecutionContext,
    mt_bench_judgments: pl.DataFrame,
    arena_hard_judgments: pl.DataFrame,
    ifeval: pl.DataFrame,
    open_llm_leaderboard: pl.DataFrame,
) -> pl.DataFrame:
    return scores.table(mt_bench_judgments, arena_hard_judgments, ifeval, open_llm_leaderboard, against())


def against() -> dict[str, str]:
    """The baseline row of each model that has an adapter: the row of its backbone as it is."""
    bare = {model.backbone: model.name for model in STUDY.models if model.module == "none"}
    return {model.name: bare[model.backbone] for model in STUDY.models if model.adapter and model.backbone in bare}
