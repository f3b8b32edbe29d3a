"""What the report begins with: every score beside the paper's, what differs, and what it took, in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from nift_assets import benchmarks
from nift_assets.benchmarks.scoring.interface import Measure
from nift_assets.pages.sheets import lettered
from nift_assets.rows import Model
from nift_assets.study import Study

# Below this a difference counts as one, by the p-value that is corrected for how many were looked at.
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Made:
    """When a page was made, and by which code."""

    at: datetime
    code: str


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """How long the last run of a table's step took, all its stored partitions together."""

    table: str
    group: str
    partitions: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ScorePlace:
    """What stands in one place of the score table; `marks` are the letters of its notes, `paper` is the paper's number.

    `gain` is the difference from `against`, the model before training, and `p` its p-value, corrected by Holm's method.
    """

    measure: Measure
    score: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    complete: bool = True
    missing: int | None = None
    expected: int | None = None
    marks: str = ""
    against: str | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p: float | None = None

    @property
    def is_measured(self) -> bool:
        return self.score is not None

    @property
    def differs(self) -> bool:
        return self.gain is not None and self.p is not None and self.p < SIGNIFICANT

    @property
    def from_paper(self) -> float | None:
        return None if self.score is None or self.paper is None else self.score - self.paper

    @property
    def paper_is_outside(self) -> bool:
        """Whether the paper's number lies outside of our interval."""
        numbers = (self.low, self.paper, self.high)
        low, paper, high = (float("nan") if number is None else number for number in numbers)
        return paper < low or paper > high


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A model, how it was made, and its score on each measure: None where it is not measured on one."""

    model: Model
    about: str
    places: Sequence[ScorePlace | None]


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """All scores of a study, with the notes that letters in it stand for."""

    measures: Sequence[Measure]
    rows: Sequence[ScoreRow]
    notes: Sequence[tuple[str, str]]

    @property
    def places(self) -> list[tuple[ScoreRow, ScorePlace]]:
        return [(row, place) for row in self.rows for place in row.places if place is not None]

    @property
    def measured(self) -> int:
        return sum(place.is_measured for _, place in self.places)

    @property
    def compared(self) -> list[tuple[ScoreRow, ScorePlace]]:
        """The scores that were tested against the model before training, the surest difference first."""
        tested = [(row, place) for row, place in self.places if place.gain is not None and place.p is not None]
        return sorted(tested, key=lambda tested: tested[1].p or 0.0)

    @property
    def beside_paper(self) -> list[tuple[ScoreRow, ScorePlace]]:
        return [(row, place) for row, place in self.places if place.from_paper is not None]

    @property
    def has_paper(self) -> bool:
        return any(place.paper is not None for _, place in self.places)

    @property
    def has_incomplete(self) -> bool:
        return any(place.is_measured and not place.complete for _, place in self.places)

    @property
    def modules(self) -> set[str]:
        return {row.model.module for row in self.rows}

    @property
    def plotted(self) -> list[tuple[Measure, list[tuple[ScoreRow, ScorePlace]]]]:
        """Each measure with the models that are run on it."""
        return [
            (measure, [(row, place) for row, place in self.places if place.measure == measure])
            for measure in self.measures
        ]


def score_table(study: Study, measures: Sequence[Measure], benchmark_scores: pl.DataFrame) -> ScoreTable:
    """Every model of the study on every measure of its benchmarks, measured or not."""
    found = {(row["model"], row["benchmark"]): row for row in benchmark_scores.iter_rows(named=True)}
    wanted = {model.name: measured(study, model, measures) for model in study.models}
    notes = lettered(found[key]["note"] for key in _keys(wanted) if key in found)
    rows = [
        ScoreRow(
            model=model,
            about=_about(study, model),
            places=[
                _place(model, measure, found.get((model.name, measure.name)), notes)
                if measure in wanted[model.name]
                else None
                for measure in measures
            ],
        )
        for model in study.models
    ]
    return ScoreTable(measures=measures, rows=rows, notes=[(letter, note) for note, letter in notes.items()])


def measured(study: Study, model: Model, measures: Iterable[Measure]) -> list[Measure]:
    """The measures that a model is run on: all that its benchmarks give."""
    rows = map(study.benchmark, study.measured_on(model))
    names = {measure.name for measure in benchmarks.measures(rows)}
    return [measure for measure in measures if measure.name in names]


def _keys(wanted: Mapping[str, Sequence[Measure]]) -> list[tuple[str, str]]:
    return [(model, measure.name) for model, measures in wanted.items() for measure in measures]


def _place(model: Model, measure: Measure, row: Mapping[str, Any] | None, notes: Mapping[str, str]) -> ScorePlace:
    printed = [cell.paper for cell in model.cells if cell.benchmark == measure.name and cell.paper is not None]
    paper = printed[0] if printed else None
    if row is None:
        return ScorePlace(measure=measure, paper=paper)
    return ScorePlace(
        measure=measure,
        score=row["score"],
        low=row["low"],
        high=row["high"],
        paper=paper,
        complete=bool(row["complete"]),
        missing=row["missing"],
        expected=row["expected"],
        marks=notes.get(row["note"] or "", ""),
        against=row["against"],
        gain=row["difference"],
        gain_low=row["difference_low"],
        gain_high=row["difference_high"],
        p=row["p_corrected"],
    )


def _about(study: Study, model: Model) -> str:
    """How a model was made, in words that need no glossary."""
    if model.adapter is None:
        return "as it is, without an adapter"
    adapter = study.adapter(model.adapter)
    if model.module == "lora":
        return f"{model.backbone}, trained on {adapter.training_set}"
    return f"{model.backbone}, with the adapter of {adapter.backbone} trained on {adapter.training_set}"
