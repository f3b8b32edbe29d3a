"""What a judge says of the answers: MT-Bench turns rated from 1 to 10, Arena-Hard games won against the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from nift_assets import providers
from nift_assets.benchmarks import arena_hard, mt_bench
from nift_assets.benchmarks import files as benchmark_files
from nift_assets.rows import Benchmark, without_places
from nift_assets.steps import asking
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import Made, table

MT_BENCH = STUDY.benchmark("mt_bench")
ARENA_HARD = STUDY.benchmark("arena_hard")


def _what_shapes(benchmark: Benchmark) -> tuple[Any, ...]:
    """What the verdicts depend on besides the answers: the benchmark's files wherever they lie, and the judge."""
    files = [benchmark_files.fingerprint(benchmark)]
    if Path(benchmark.judge_config).is_absolute():
        files.append(benchmark_files.fingerprint(benchmark, benchmark.judge_config))
    return without_places(benchmark), STUDY.judge(str(benchmark.judge)).shape(), *files


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("mt_bench_answers",),
    source=benchmark_files.source(MT_BENCH),
    by="model",
    asks=True,
    rows=lambda key, table: _what_shapes(MT_BENCH),
    version=1,
    plugins=lambda key, table: (providers.module(STUDY.judge(str(MT_BENCH.judge)).provider),),
)
def mt_bench_judgments(context: dg.AssetExecutionContext, mt_bench_answers: pl.DataFrame) -> Made:
    judge = STUDY.judge(str(MT_BENCH.judge))
    requests = mt_bench.requests(MT_BENCH, judge, mt_bench_answers)
    asked = asking.ask(context, judge, requests)
    frame = mt_bench.judgments(mt_bench_answers, requests, asked.answers, judge)
    rated = {"mean_rating": frame["rating"].mean(), "unrated": frame["rating"].null_count(), **_readings(frame)}
    return Made(frame, metadata={**rated, **asking.metadata(asked)})


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("arena_hard_answers",),
    source=benchmark_files.source(ARENA_HARD),
    by="model",
    asks=True,
    rows=lambda key, table: _what_shapes(ARENA_HARD),
    version=1,
    plugins=lambda key, table: (providers.module(STUDY.judge(str(ARENA_HARD.judge)).provider),),
)
def arena_hard_judgments(context: dg.AssetExecutionContext, arena_hard_answers: pl.DataFrame) -> Made:
    judge = STUDY.judge(str(ARENA_HARD.judge))
    games = arena_hard.games(ARENA_HARD, arena_hard_answers)
    requests = arena_hard.requests(ARENA_HARD, judge, games)
    asked = asking.ask(context, judge, requests)
    again = arena_hard.retries(requests, asked.answers)
    metadata = asking.metadata(asked)
    answers = []
    if again:
        retried = asking.ask(context, judge, list(again.values()))
        answers = list(retried.answers)
        metadata = asking.together(metadata, asking.metadata(retried))
    frame = arena_hard.judgments(
        games, requests, asked.answers, judge, str(ARENA_HARD.baseline), dict(zip(again, answers, strict=True))
    )
    ruled = {"without_verdict": frame["verdict"].null_count(), "asked_twice": len(again), **_readings(frame)}
    return Made(frame, metadata={**ruled, **metadata})


def _readings(frame: pl.DataFrame) -> dict[str, int]:
    """How many judgments were read in which way."""
    return {f"reading_{reading}": n for reading, n in frame["reading"].value_counts().sort("reading").iter_rows()}
