"""What a judge says of the answers of a model: a table `<benchmark>_judgments` of each benchmark that has a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from nift_assets import benchmarks, providers
from nift_assets.benchmarks.scoring import files
from nift_assets.rows import Benchmark, without_places
from nift_assets.steps import asking
from nift_assets.steps.context import Context
from nift_assets.steps.table import Declaration, TableOutput, table
from nift_assets.study import Study


def steps(study: Study) -> list[Declaration]:
    """The step of each benchmark of the study whose answers a judge reads."""
    return [declare(row.name) for row in study.benchmarks if benchmarks.is_judged(row.name)]


def declare(name: str) -> Declaration:
    """The step that has the answers of a benchmark judged."""
    file = benchmarks.judged(name)

    @table(
        benchmarks.results_table(name),
        group="benchmarks",
        kinds={"python", "polars"},
        inputs=(benchmarks.answers_table(name),),
        source=lambda study: files.source(study.benchmark(name)),
        by="model",
        asks=True,
        rows=lambda study, key, table: _what_shapes(study, study.benchmark(name)),
        version=1,
        plugins=lambda study, key, table: (
            providers.module(study.judge(str(study.benchmark(name).judge)).provider),
            *(file.requests, file.retries, file.judgments),
        ),
    )
    def judgments(context: Context, **frames: pl.DataFrame) -> TableOutput:
        (answers,) = frames.values()
        return judged(context, context.study.benchmark(name), answers)

    return judgments


def judged(context: Context, row: Benchmark, answers: pl.DataFrame) -> TableOutput:
    """What the row's judge says of the answers, with what it is asked once more where it gave no verdict."""
    file, judge = benchmarks.judged(row.name), context.study.judge(str(row.judge))
    requests = file.requests(row, judge, answers)
    asked = asking.ask(context, judge, requests)
    again = file.retries(requests, asked.answers)
    metadata = asking.metadata(asked)
    retried = {}
    if again:
        more = asking.ask(context, judge, list(again.values()))
        retried = dict(zip(again, more.answers, strict=True))
        metadata = asking.combined(metadata, asking.metadata(more))
    table = file.judgments(row, judge, answers, requests, asked.answers, retried)
    return TableOutput(table.rows, metadata={**table.metadata, **_readings(table.rows), **metadata})


def _what_shapes(study: Study, benchmark: Benchmark) -> tuple[Any, ...]:
    """What the verdicts depend on besides the answers: the benchmark's files wherever they lie, and the judge."""
    fingerprints = [files.fingerprint(benchmark)]
    if Path(benchmark.judge_config).is_absolute():
        fingerprints.append(files.fingerprint(benchmark, benchmark.judge_config))
    return without_places(benchmark), study.judge(str(benchmark.judge)).shape(), *fingerprints


def _readings(frame: pl.DataFrame) -> dict[str, int]:
    """How many judgments were read in which way."""
    return {f"reading_{reading}": n for reading, n in frame["reading"].value_counts().sort("reading").iter_rows()}
