"""What a judge says of the answers: MT-Bench turns rated from 1 to 10, Arena-Hard games won against the baseline."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.benchmarks import arena_hard, mt_bench
from nift_assets.benchmarks import files as benchmark_files
from nift_assets.rows import Benchmark, without_places
from nift_assets.steps import asking
from nift_assets.steps.context import Context
from nift_assets.steps.table import Made, table
from nift_assets.study import Study


def _what_shapes(study: Study, benchmark: Benchmark) -> tuple[Any, ...]:
    """What the verdicts depend on besides the answers: the benchmark's files wherever they lie, and the judge."""
    files = [benchmark_files.fingerprint(benchmark)]
    if Path(benchmark.judge_config).is_absolute():
        files.append(benchmark_files.fingerprint(benchmark, benchmark.judge_config))
    return without_places(benchmark), study.judge(str(benchmark.judge)).shape(), *files


def _provider(study: Study, benchmark: str) -> ModuleType:
    return providers.module(study.judge(str(study.benchmark(benchmark).judge)).provider)


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("mt_bench_answers",),
    source=lambda study: benchmark_files.source(study.benchmark("mt_bench")),
    by="model",
    asks=True,
    rows=lambda study, key, table: _what_shapes(study, study.benchmark("mt_bench")),
    version=1,
    plugins=lambda study, key, table: (_provider(study, "mt_bench"),),
)
def mt_bench_judgments(context: Context, mt_bench_answers: pl.DataFrame) -> Made:
    benchmark = context.study.benchmark("mt_bench")
    judge = context.study.judge(str(benchmark.judge))
    requests = mt_bench.requests(benchmark, judge, mt_bench_answers)
    asked = asking.ask(context, judge, requests)
    frame = mt_bench.judgments(mt_bench_answers, requests, asked.answers, judge)
    rated = {"mean_rating": frame["rating"].mean(), "unrated": frame["rating"].null_count(), **_readings(frame)}
    return Made(frame, metadata={**rated, **asking.metadata(asked)})


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("arena_hard_answers",),
    source=lambda study: benchmark_files.source(study.benchmark("arena_hard")),
    by="model",
    asks=True,
    rows=lambda study, key, table: _what_shapes(study, study.benchmark("arena_hard")),
    version=1,
    plugins=lambda study, key, table: (_provider(study, "arena_hard"),),
)
def arena_hard_judgments(context: Context, arena_hard_answers: pl.DataFrame) -> Made:
    benchmark = context.study.benchmark("arena_hard")
    judge = context.study.judge(str(benchmark.judge))
    games = arena_hard.games(benchmark, arena_hard_answers)
    requests = arena_hard.requests(benchmark, judge, games)
    asked = asking.ask(context, judge, requests)
    again = arena_hard.retries(requests, asked.answers)
    metadata = asking.metadata(asked)
    answers = []
    if again:
        retried = asking.ask(context, judge, list(again.values()))
        answers = list(retried.answers)
        metadata = asking.together(metadata, asking.metadata(retried))
    frame = arena_hard.judgments(
        games, requests, asked.answers, judge, str(benchmark.baseline), dict(zip(again, answers, strict=True))
    )
    ruled = {"without_verdict": frame["verdict"].null_count(), "asked_twice": len(again), **_readings(frame)}
    return Made(frame, metadata={**ruled, **metadata})


def _readings(frame: pl.DataFrame) -> dict[str, int]:
    """How many judgments were read in which way."""
    return {f"reading_{reading}": n for reading, n in frame["reading"].value_counts().sort("reading").iter_rows()}
