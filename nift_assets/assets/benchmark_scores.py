"""Every score there is so far: one per model and benchmark, with its interval and how much of it is missing."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import scores
from nift_assets.assets.table import table


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=("mt_bench_judgments", "arena_hard_judgments", "ifeval", "open_llm_leaderboard"),
    code=(scores,),
)
def benchmark_scores(
    context: dg.AssetExecutionContext,
    mt_bench_judgments: pl.DataFrame,
    arena_hard_judgments: pl.DataFrame,
    ifeval: pl.DataFrame,
    open_llm_leaderboard: pl.DataFrame,
) -> pl.DataFrame:
    return scores.table(mt_bench_judgments, arena_hard_judgments, ifeval, open_llm_leaderboard)
