"""The scores of two states beside each other, by the project's paired test over the questions that both have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from expectations import contract
from expectations.frames import schema
from nift_assets import benchmarks
from nift_assets.benchmarks.scoring import resampling, scores
from nift_assets.benchmarks.scoring.resampling import Difference
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.differences.states import StudyState, TablePartition

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class ScoreDifference:
    """A model on a measure in both states: the scores, None where it was not run, and how much higher the later is.

    Results that are the same rows have no difference to be tested; p is corrected over all that have one (Holm).
    """

    model: str
    measure: str
    before: Measured | None
    after: Measured | None
    same_results: bool = False
    difference: Difference | None = None
    p_corrected: float | None = None

    @property
    def is_significant(self) -> bool:
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT


def compare(before: StudyState, after: StudyState) -> list[ScoreDifference]:
    """Every model and measure that has a score in either state, by benchmark and model. DamagedTable for results that
    are not what was written."""
    found = [row for name in benchmarks.names() for row in _of_benchmark(name, before, after)]
    tested = [row for row in found if row.difference]
    corrected = resampling.holm([row.difference.p for row in tested if row.difference])
    by_row = dict(zip(map(id, tested), corrected, strict=True))
    return [replace(row, p_corrected=by_row.get(id(row))) for row in found]


def _of_benchmark(name: str, before: StudyState, after: StudyState) -> Iterator[ScoreDifference]:
    table = benchmarks.results_table(name)
    models = sorted({key for state in (before, after) for of, key in state.files if of == table and key})
    for model in models:
        place = (table, model)
        same = place in before.files and before.versions[place] == after.versions.get(place)
        old = _measured(name, before, place)
        new = old if same else _measured(name, after, place)
        for measure in dict.fromkeys([*old, *new]):
            one, other = old.get(measure), new.get(measure)
            paired = scores.difference(other, one) if one and other and not same else None
            yield ScoreDifference(
                model=model, measure=measure, before=one, after=other, same_results=same, difference=paired
            )


def _measured(benchmark: str, state: StudyState, place: TablePartition) -> dict[str, Measured]:
    """A model's numbers on one benchmark by their names, none where it was not run. LacksColumn for rows
    without a column that its scores are made of."""
    rows = state.read(place)
    if rows is None:
        return {}
    try:
        measured = benchmarks.load(benchmark).score(str(place[1]), rows)
    except (pl.exceptions.ColumnNotFoundError, KeyError) as error:
        absent = [name for name in schema(contract.load(place[0])) if name not in rows.columns]
        if not absent:
            raise
        raise state.lacks(place, absent[0]) from error
    return {row.measure: row for row in measured}
