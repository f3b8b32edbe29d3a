"""What a benchmark's file gives, and the values it gives it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import polars as pl

if TYPE_CHECKING:
    from nift_assets.benchmarks.scoring.files import PublishedFile
    from nift_assets.benchmarks.scoring.scores import Measured
    from nift_assets.protocol import Answer, Request
    from nift_assets.rows import Benchmark, Judge

# What `nift_training.evaluate` runs a benchmark with: questions that are answered in words, IFEval's prompts, or
# lm-eval's tasks, which need probabilities and so the weights.
Runner = Literal["conversations", "ifeval", "leaderboard"]
Range = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number that a benchmark gives: what it is called, on a page and above a column, and its scale."""

    name: str
    title: str
    column: str
    unit: str
    limit: float
    least: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a benchmark's questions are taken to need as long as nobody has answered them: per judge's call the least,
    the most likely and the largest number of tokens."""

    questions: int
    calls_per_question: int
    input: Range
    output: Range


@dataclass(frozen=True)
class BenchmarkTable:
    """A frame, and what there is to say of it."""

    rows: pl.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoredFiles:
    """The files of other tools that are to be scored, and how; without `questions` those of the published benchmark
    are taken for all there are."""

    answers: Sequence[Path] = ()
    judgments: Sequence[Path] = ()
    results: Sequence[Path] = ()
    questions: Path | None = None
    baseline: str | None = None
    style: bool = False


class BenchmarkModule(Protocol):
    """A module of `nift_assets/benchmarks`. Its functions take the study's row of the benchmark and values."""

    VERSION: int
    """Raised by a person when answers or judgments come out otherwise (see `steps/versions.py`)."""
    TITLE: str
    """What the benchmark is called."""
    MEASURES: Sequence[Measure]
    """The numbers it gives, as they stand beside one another."""
    PUBLISHED: Sequence[PublishedFile]
    """Its files at their homes."""
    ASKED: str
    """The one of its files that has what a model is asked; empty for the whole folder."""
    RUNNER: Runner

    def check(self, row: Benchmark) -> None:
        """ValueError for a row that lacks what the benchmark needs."""

    def options(self, row: Benchmark) -> Mapping[str, object]:
        """What the runner is told."""

    def questions(self, row: Benchmark) -> Iterable[tuple[str, str]]:
        """Every text a model is asked, with the name of its question."""

    def answers(self, row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
        """The table of what the runner wrote."""

    def score(self, model: str, results: pl.DataFrame) -> Sequence[Measured]:
        """What the judgments of a model come to or, where nobody judges, its answers; one value per measure."""


class JudgedModule(BenchmarkModule, Protocol):
    """The file of a benchmark whose answers a judge reads."""

    SIZE: Size

    def requests(self, row: Benchmark, judge: Judge, answers: pl.DataFrame) -> list[Request]:
        """What the judge is asked about the answers of a model."""

    def retries(self, requests: Sequence[Request], judged: Sequence[Answer]) -> Mapping[int, Request]:
        """What is asked once more, by the place of the request it follows."""

    def judgments(
        self,
        row: Benchmark,
        judge: Judge,
        answers: pl.DataFrame,
        requests: Sequence[Request],
        judged: Sequence[Answer],
        retried: Mapping[int, Answer],
    ) -> BenchmarkTable:
        """The table of what the judge said."""


class WritingModule(JudgedModule, Protocol):
    """The file of a judged benchmark whose own tool writes files of answers and judgments."""

    def published_judgments(
        self,
        row: Benchmark,
        judge: Judge,
        answers: pl.DataFrame,
        requests: Sequence[Request],
        judged: Sequence[Answer],
        retried: Mapping[int, Answer],
    ) -> Iterable[Mapping[str, Any]]:
        """What the judge said, as the lines of the tool's own file."""

    def published_answer(
        self, model: str, question: Any, turns: Sequence[str], tokens: Sequence[int | None]
    ) -> Mapping[str, Any]:
        """An answer as a line of the tool's own file, with the tokens of each turn where they are known."""


class ReadingModule(BenchmarkModule, Protocol):
    """The file of a benchmark of which other tools write files."""

    def read(self, inputs: ScoredFiles) -> list[Measured]:
        """One score per model in the files, by the arithmetic of our own tables."""
