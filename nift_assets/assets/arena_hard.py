"""Arena-Hard: what each model answers, and who wins two games per question against the baseline's answer."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import arena_hard as judging
from nift_assets import benchmark_files
from nift_assets.assets import process
from nift_assets.assets.judging import ask
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Made, table
from nift_training import answer, templates

BENCHMARK = STUDY.benchmark("arena_hard")


@table(
    group="benchmarks",
    kinds={"pytorch", "python"},
    inputs=("merged_models",),
    by="model",
    rows=lambda key: (BENCHMARK, benchmark_files.fingerprint(BENCHMARK)),
    code=(answer, templates),
    pool="gpu",
)
def arena_hard_answers(context: dg.AssetExecutionContext, merged_models: pl.DataFrame) -> Made:
    rows = [
        {
            "model": context.partition_key,
            "question_id": row["question_id"],
            "answer": row["turns"][0],
            "tokens": row["tokens"][0],
            "stopped": row["stopped"][0],
        }
        for row in process.answers(context, "arena-hard", BENCHMARK, merged_models)
    ]
    frame = pl.DataFrame(rows)
    return Made(frame, metadata={"mean_tokens": frame["tokens"].mean()})


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("arena_hard_answers",),
    by="model",
    rows=lambda key: (BENCHMARK, STUDY.judge(str(BENCHMARK.judge)), benchmark_files.fingerprint(BENCHMARK)),
    code=(judging,),
)
def arena_hard_judgments(context: dg.AssetExecutionContext, arena_hard_answers: pl.DataFrame) -> Made:
    judge = STUDY.judge(str(BENCHMARK.judge))
    games = judging.games(BENCHMARK, arena_hard_answers)
    judged = ask(context, judge, judging.requests(BENCHMARK, judge, games))
    frame = judging.judgments(games, judged, judge, str(BENCHMARK.baseline))
    return Made(frame, metadata={"without_verdict": frame["verdict"].null_count()})
