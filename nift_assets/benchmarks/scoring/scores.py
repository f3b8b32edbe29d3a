"""What a benchmark comes to: the number, its interval, how much is missing, and whether two of them differ.

Our tables and other tools' files become the same rows, and each benchmark has one arithmetic for both. `published` is
what the benchmark's own tool makes of all the rows there are; `score` is the same arithmetic over what counts: each
verdict once, on its scale, and the judge's own. In a sound file the two are one number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Generic, Protocol, TypeVar

import polars as pl

from nift_assets.benchmarks.scoring import json_lines, resampling
from nift_assets.benchmarks.scoring.resampling import Difference, QuestionPoints

# Above this share of missing verdicts a score is marked incomplete (promise P11).
MOST_MISSING = 0.02
ANOTHER = "duplicates of another answer"
ALIKE = "answers alike"
OTHER_ANSWERS = "more than one answer to a question was judged: the first counts, unless --answers say which one it is"


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One model on one measure: the score, the 95% interval of a bootstrap over questions, and how complete it is.

    `questions` counts what was resampled, `expected` the verdicts there should be and `missing` those there are not.
    `parts` are the numbers the score is made of, and `counts` says what was found besides: duplicates, verdicts that
    do not count by kind, flagged answers. `sample` is what the score is made of or, where that is not known, `error`
    its standard error.
    """

    model: str
    measure: str
    score: float | None
    published: float | None
    low: float | None
    high: float | None
    questions: int
    expected: int
    missing: int
    parts: Mapping[str, float | None] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sample: QuestionPoints | None = None
    error: float | None = None

    @property
    def complete(self) -> bool:
        return self.missing <= MOST_MISSING * self.expected

    @property
    def missing_share(self) -> float:
        return self.missing / self.expected if self.expected else 0.0

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the score may be another than it seems, each with its count, although the arithmetic is right."""
        said = []
        if number := self.counts.get("repeated"):
            # Of labels in an answer all verdicts that agree with one are left out: if those are low, the rest is high.
            theirs = "" if self.published is None else f" (the published tool counts them and has {self.published:.2f})"
            said.append(f"{number:,} verdicts do not count, since the answer holds their label{theirs}")
        if number := self.counts.get(ALIKE):
            said.append(f"{number:,} answers are one text again and again")
        return tuple(said)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the table of scores: a model on a measure, beside the row that it is held against.

    `against` is the baseline row, the backbone as it is; the difference to it is paired by question, and `p_corrected`
    is corrected over the measure's column of the table (Holm). `note` says why a score may be another than it seems.
    """

    model: str
    benchmark: str
    score: float | None
    published: float | None
    low: float | None
    high: float | None
    questions: int
    expected: int
    missing: int
    missing_share: float
    complete: bool
    note: str | None = None
    against: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_corrected: float | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How much one model is above another on the questions both have, with p corrected over all pairs of the table."""

    one: str
    other: str
    difference: Difference
    corrected: float


SCHEMA: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "benchmark": pl.String,
    "score": pl.Float64,
    "published": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "questions": pl.Int64,
    "expected": pl.Int64,
    "missing": pl.Int64,
    "missing_share": pl.Float64,
    "complete": pl.Boolean,
    "note": pl.String,
    "against": pl.String,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "p_corrected": pl.Float64,
}


def table(measured: Iterable[Measured], against: Mapping[str, str] | None = None) -> pl.DataFrame:
    """One row per model × measure, beside the model that `against` names for it."""
    columns = grouped(measured, lambda row: row.measure).values()
    rows = [score for column in columns for score in held_against(column, against or {})]
    return pl.DataFrame([asdict(score) for score in rows], schema=SCHEMA, orient="row").sort("model", "benchmark")


def held_against(measured: Sequence[Measured], against: Mapping[str, str]) -> list[Score]:
    """The scores on one measure, each with its difference to the model it is held against, if that was run."""
    by_model = {row.model: row for row in measured}
    differences = {
        name: paired
        for name, row in by_model.items()
        if (other := by_model.get(against.get(name, ""))) and (paired := difference(row, other))
    }
    corrected = dict(zip(differences, resampling.holm([d.p for d in differences.values()]), strict=True))
    return [
        _score(row, against[name], differences[name], corrected[name]) if name in differences else _score(row)
        for name, row in by_model.items()
    ]


def compare(measured: Sequence[Measured]) -> list[Compared]:
    """Every pair of the models on the same measure, the p-values corrected over all of them."""
    pairs = [
        (one.model, other.model, paired)
        for one, other in combinations(measured, 2)
        if one.measure == other.measure
        and one.sample
        and other.sample
        and (paired := resampling.difference(one.sample, other.sample))
    ]
    corrected = resampling.holm([paired.p for _, _, paired in pairs])
    return [
        Compared(one=one, other=other, difference=paired, corrected=p)
        for (one, other, paired), p in zip(pairs, corrected, strict=True)
    ]


def difference(one: Measured, other: Measured) -> Difference | None:
    """How much higher the first is: paired over the questions both have or, without questions, by standard errors."""
    if one.sample and other.sample:
        return resampling.difference(one.sample, other.sample)
    if one.score is None or other.score is None or one.error is None or other.error is None:
        return None
    return resampling.normal(one.score, one.error, other.score, other.error, min(one.questions, other.questions))


def resampled(model: str, measure: str, sample: QuestionPoints, *, published: float | None, **fields: Any) -> Measured:
    """The score of a sample of questions with its interval; `fields` are the others of what is measured."""
    low, high = resampling.interval(sample)
    score = sample.score()
    return Measured(
        model=model, measure=measure, score=score, published=published, low=low, high=high, sample=sample, **fields
    )


def _score(
    row: Measured, against: str | None = None, paired: Difference | None = None, p: float | None = None
) -> Score:
    plain = {name: getattr(row, name) for name in ("model", "score", "published", "low", "high", "questions")}
    compared: dict[str, Any] = {}
    if paired:
        compared = {
            "difference": paired.value,
            "difference_low": paired.low,
            "difference_high": paired.high,
            "p": paired.p,
        }
    return Score(
        benchmark=row.measure,
        expected=row.expected,
        missing=row.missing,
        missing_share=row.missing_share,
        complete=row.complete,
        note="; ".join(row.doubts) or None,
        against=against,
        p_corrected=p,
        **plain,
        **compared,
    )


# -- each verdict once -------------------------------------------------------------------------------------------------


class JudgedVerdict(Protocol):
    """A rating or the outcome of a game: about which answer it is, and whether it counts."""

    @property
    def model(self) -> str: ...
    @property
    def judge(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def place(self) -> tuple[str, int] | None: ...
    @property
    def shown(self) -> bytes: ...
    @property
    def of_files(self) -> bool: ...
    @property
    def counts(self) -> bool: ...


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
VerdictRow = TypeVar("VerdictRow", bound=JudgedVerdict)


@dataclass(frozen=True)
class UniqueVerdicts(Generic[VerdictRow]):
    """The row that counts for each place, all rows, and what was left out by kind."""

    kept: dict[tuple[str, int], VerdictRow]
    rows: Sequence[VerdictRow]
    counts: Counter[str]


def once(rows: Sequence[VerdictRow]) -> UniqueVerdicts[VerdictRow]:
    """Each place's first row, unless a later one is about the answer that is in the files or is the first to count."""
    kept: dict[tuple[str, int], VerdictRow] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        place = row.place or (row.question, -len(kept))  # of a battle it is not said which game it was
        first = kept.setdefault(place, row)
        if first is row:
            continue
        counts["duplicates"] += 1
        counts[ANOTHER] += row.shown != first.shown
        if (row.of_files, row.counts) > (first.of_files, first.counts):
            kept[place] = row
    return UniqueVerdicts(kept, rows, counts)


def named(rows: Sequence[VerdictRow]) -> dict[str, list[VerdictRow]]:
    """The rows of each model, under its name; with several judges, those of each model and judge."""
    several = len({row.judge for row in rows}) > 1
    return grouped(rows, lambda row: f"{row.model} (judge {row.judge or 'unnamed'})" if several else row.model)


def grouped(rows: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    """The rows of each key, in the order in which the keys first appear."""
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    return groups


def identities(questions: Sequence[Any] | None) -> set[str] | None:
    """The ids of the questions as texts; None where they are not known."""
    return None if questions is None else {json_lines.identity(question) for question in questions}


def mean(values: Iterable[float | None]) -> float | None:
    """Over those there are, rounded once."""
    known_values = [value for value in values if value is not None]
    return math.fsum(known_values) / len(known_values) if known_values else None
