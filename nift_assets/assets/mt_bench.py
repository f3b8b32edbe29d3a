"""MT-Bench: what each model answers to two-turn questions, and how a judge rates each turn from 1 to 10."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import benchmark_files
from nift_assets import mt_bench as judging
from nift_assets.assets import process
from nift_assets.assets.judging import ask
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Made, table
from nift_training import answer, templates

BENCHMARK = STUDY.benchmark("mt_bench")


@table(
    group="benchmarks",
    kinds={"pytorch", "python"},
    inputs=("merged_models",),
    by="model",
    rows=lambda key: (BENCHMARK, benchmark_files.fingerprint(BENCHMARK)),
    code=(answer, templates),
    pool="gpu",
)
def mt_bench_answers(context: dg.AssetExecutionContext, merged_models: pl.DataFrame) -> pl.DataFrame:
    answers = process.answers(context, "mt-bench", BENCHMARK, merged_models)
    categories = {q["question_id"]: q["category"] for q in benchmark_files.rows(BENCHMARK, "question.jsonl")}
    return pl.DataFrame(
        [
            {
                "model": context.partition_key,
                "question_id": row["question_id"],
                "category": categories[row["question_id"]],
                "run": row["run"],
                "turn": turn,
                "answer": text,
                "tokens": tokens,
                "stopped": stopped,
            }
            for row in answers
            for turn, (text, tokens, stopped) in enumerate(
                zip(row["turns"], row["tokens"], row["stopped"], strict=True), start=1
            )
        ]
    )


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("mt_bench_answers",),
    by="model",
    rows=lambda key: (BENCHMARK, STUDY.judge(str(BENCHMARK.judge)), benchmark_files.fingerprint(BENCHMARK)),
    code=(judging,),
)
def mt_bench_judgments(context: dg.AssetExecutionContext, mt_bench_answers: pl.DataFrame) -> Made:
    judge = STUDY.judge(str(BENCHMARK.judge))
    judged = ask(context, judge, judging.requests(BENCHMARK, judge, mt_bench_answers))
    frame = judging.judgments(mt_bench_answers, judged, judge)
    return Made(frame, metadata={"mean_rating": frame["rating"].mean(), "unrated": frame["rating"].null_count()})
