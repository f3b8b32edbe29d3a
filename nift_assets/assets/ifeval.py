"""IFEval: one response per prompt, and which of the instructions in it a program finds followed."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import benchmark_files
from nift_assets.assets import process
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import table
from nift_training import ifeval as checking
from nift_training import templates
from nift_training.artifacts import read_rows

BENCHMARK = STUDY.benchmark("ifeval")


@table(
    group="benchmarks",
    kinds={"pytorch", "python"},
    inputs=("merged_models",),
    by="model",
    rows=lambda key: (BENCHMARK, benchmark_files.fingerprint(BENCHMARK)),
    code=(checking, templates),
    pool="gpu",
)
def ifeval(context: dg.AssetExecutionContext, merged_models: pl.DataFrame) -> pl.DataFrame:
    with process.scratch() as scratch:
        process.run(
            context,
            "ifeval",
            out=scratch / "ifeval.jsonl",
            prompts=benchmark_files.path_of(BENCHMARK, "input_data.jsonl"),
            max_new_tokens=BENCHMARK.max_new_tokens,
            **process.model_options(context, merged_models),
        )
        rows = read_rows(scratch / "ifeval.jsonl")
    return pl.DataFrame(
        [
            {
                "model": context.partition_key,
                "key": row["key"],
                "response": row["response"],
                "tokens": row["tokens"],
                "stopped": row["stopped"],
                "instruction_ids": row["instruction_ids"],
                "strict": row["strict"],
                "loose": row["loose"],
                "instructions": len(row["strict"]),
                "instructions_followed_strict": sum(row["strict"]),
                "instructions_followed_loose": sum(row["loose"]),
                "prompt_strict": all(row["strict"]),
                "prompt_loose": all(row["loose"]),
            }
            for row in rows
        ]
    )
