"""IFEval: 541 prompts with 834 instructions that a program checks (protocol of Table 7).

The checker is lm-eval's own, seeded; it runs where the responses are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from nift_assets.benchmarks.scoring import files, instructions
from nift_assets.benchmarks.scoring.files import PublishedFile
from nift_assets.benchmarks.scoring.interface import BenchmarkTable, Measure, Runner, ScoredFiles
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.rows import Benchmark

VERSION = 1
NAME = "ifeval"
TITLE = "IFEval"
MEASURES = (
    Measure(
        name=NAME,
        title=TITLE,
        column="IFEval (%)",
        unit="mean of prompt-level and instruction-level strict accuracy, in percent",
        limit=100,
    ),
)
ASKED = "input_data.jsonl"
RUNNER: Runner = "ifeval"
PUBLISHED = (
    PublishedFile(
        path=ASKED,
        url="https://raw.githubusercontent.com/google-research/google-research/"
        "19638399cc9e03623c5b9087a1d6fa8813974ce9/instruction_following_eval/data/input_data.jsonl",
        sha256="48a13f6e56fcd38da37fb9a7da78277792643bb96a1b0e60e79405e6a5d10fca",
    ),
)


def check(row: Benchmark) -> None:
    """A row needs nothing."""


def options(row: Benchmark) -> Mapping[str, object]:
    """What the runner is told; ValueError before anything is answered for a prompt whose key no table could hold."""
    files.taken(row, ASKED, take=lambda prompt: files.number(prompt["key"]))
    return {"ifeval": files.path_of(row, ASKED), "ifeval_tokens": row.max_new_tokens}


def questions(row: Benchmark) -> Iterator[tuple[str, str]]:
    """Every prompt with its key."""
    yield from files.taken(row, ASKED, take=lambda prompt: (str(prompt["key"]), files.text(prompt["prompt"])))


def answers(row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per prompt, with the verdict on each of its instructions."""
    return instructions.table(model, rows)


def score(model: str, results: pl.DataFrame) -> list[Measured]:
    """The mean of prompt-level and instruction-level strict accuracy in percent."""
    return [instructions.of_table(model, NAME, results)]


def read(inputs: ScoredFiles) -> list[Measured]:
    """The scores of files of responses, its own or lm-eval's logs of samples."""
    if not inputs.answers or inputs.questions is None:
        raise ValueError(
            "IFEval is scored from --answers and --questions, the published input_data.jsonl; or set "
            "NIFT_BENCHMARKS to the folder that has ifeval/input_data.jsonl"
        )
    from nift_training.evaluate import ifeval as checker

    responses = instructions.responses(inputs.answers)
    return instructions.of_files(NAME, responses, checker.read_prompts(inputs.questions), checker.check)
