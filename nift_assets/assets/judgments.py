"""What a judge says of the answers: MT-Bench turns rated from 1 to 10, Arena-Hard games won against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import polars as pl

from nift_assets import arena_hard, benchmark_files, ledger, mt_bench
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Made, table
from nift_assets.ledger import Answer, Request
from nift_assets.providers import echo
from nift_assets.studies.study import Judge

MT_BENCH = STUDY.benchmark("mt_bench")
ARENA_HARD = STUDY.benchmark("arena_hard")


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("mt_bench_answers",),
    by="model",
    rows=lambda key, table: (MT_BENCH, STUDY.judge(str(MT_BENCH.judge)), benchmark_files.fingerprint(MT_BENCH)),
    code=(mt_bench, benchmark_files, ledger, echo),
)
def mt_bench_judgments(context: dg.AssetExecutionContext, mt_bench_answers: pl.DataFrame) -> Made:
    judge = STUDY.judge(str(MT_BENCH.judge))
    judged = _ask(context, judge, mt_bench.requests(MT_BENCH, judge, mt_bench_answers))
    frame = mt_bench.judgments(mt_bench_answers, judged, judge)
    return Made(frame, metadata={"mean_rating": frame["rating"].mean(), "unrated": frame["rating"].null_count()})


@table(
    group="benchmarks",
    kinds={"python", "polars"},
    inputs=("arena_hard_answers",),
    by="model",
    rows=lambda key, table: (ARENA_HARD, STUDY.judge(str(ARENA_HARD.judge)), benchmark_files.fingerprint(ARENA_HARD)),
    code=(arena_hard, benchmark_files, ledger, echo),
)
def arena_hard_judgments(context: dg.AssetExecutionContext, arena_hard_answers: pl.DataFrame) -> Made:
    judge = STUDY.judge(str(ARENA_HARD.judge))
    games = arena_hard.games(ARENA_HARD, arena_hard_answers)
    judged = _ask(context, judge, arena_hard.requests(ARENA_HARD, judge, games))
    frame = arena_hard.judgments(games, judged, judge, str(ARENA_HARD.baseline))
    return Made(frame, metadata={"without_verdict": frame["verdict"].null_count()})


def _ask(context: dg.AssetExecutionContext, judge: Judge, requests: Sequence[Request]) -> list[Answer]:
    if judge.provider != "echo":
        raise ValueError(f"judge {judge.name!r}: the provider {judge.provider!r} cannot be asked yet; use echo")
    answers: list[Answer] = context.resources.ledger.ask(requests, echo.Echo())
    return answers
