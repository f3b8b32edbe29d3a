"""The Open LLM Leaderboard's tasks, run by lm-eval in a process of its own, one score per task."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import benchmark_files
from nift_assets.assets import process
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import table
from nift_training import leaderboard
from nift_training.artifacts import read_rows

BENCHMARK = STUDY.benchmark("open_llm_leaderboard")


@table(
    group="benchmarks",
    kinds={"pytorch", "python"},
    inputs=("merged_models",),
    by="model",
    rows=lambda key: (BENCHMARK, benchmark_files.fingerprint(BENCHMARK)),
    code=(leaderboard,),
    pool="gpu",
)
def open_llm_leaderboard(context: dg.AssetExecutionContext, merged_models: pl.DataFrame) -> pl.DataFrame:
    options = process.model_options(context, merged_models)
    with process.scratch() as scratch:
        for task, _, shots in BENCHMARK.tasks:
            process.run(
                context,
                "leaderboard",
                out=scratch / f"{task}.jsonl",
                tasks_folder=BENCHMARK.location,
                tasks=task,
                shots=shots,
                model=options["model"],
                threads=options["threads"],
            )
        results = {task: read_rows(scratch / f"{task}.jsonl") for task, _, _ in BENCHMARK.tasks}
    return pl.DataFrame(
        [
            {
                "model": context.partition_key,
                "task": task,
                "metric": metric,
                "shots": shots,
                "score": row["value"] * 100,
                "stderr": row["stderr"] * 100,
                "samples": row["samples"],
            }
            for task, metric, shots in BENCHMARK.tasks
            for row in results[task]
            if row["metric"] == metric
        ]
    )
