"""Every cell of the study's tables: whether its number is there, and if not, what would fill it and what that costs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

import polars as pl

from nift_assets import sql, studies
from nift_assets.costs import plan
from nift_assets.costs.plan import Line
from nift_assets.steps.partitions import MEASURED, STUDY
from nift_assets.steps.table import STEPS
from nift_assets.store import Store

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book

State = Literal["present", "stale", "missing", "impossible"]
Place = tuple[str, str | None]
# The last table of a benchmark that is one per model; `benchmark_scores` is made of these.
RESULTS = {benchmark: table for table, benchmark in MEASURED.items()}
SCHEMA = {
    "table": pl.String,
    "kind": pl.String,
    "name": pl.String,
    "benchmark": pl.String,
    "paper": pl.Float64,
    "state": pl.String,
    "why": pl.String,
    "command": pl.String,
    "usd": pl.Float64,
}


@dataclass(frozen=True, kw_only=True)
class Covered:
    """A cell of a table and the row that fills it (`kind`, `name`, as in the study's relation of cells).

    `present` means that the number is there and nothing it was made from has changed since, `stale` that something has,
    `impossible` that no command of ours can fill it. `why` says what is in the way, `command` fills the cell, and `usd`
    is what its paid calls are expected to cost: None where nobody knows, or where there is nothing to do. Cells
    that need one teacher name its price each, so the prices of several cells are no sum.
    """

    table: str
    kind: str
    name: str
    benchmark: str
    paper: float | None
    state: State
    why: str | None = None
    command: str | None = None
    usd: float | None = None


def frame(store: Store, book: Book | None, today: date) -> pl.DataFrame:
    """One row per cell of every table of the active study, in the study's order."""
    return pl.DataFrame([asdict(cell) for cell in covered(store, book, today)], schema=SCHEMA, orient="row")


def covered(store: Store, book: Book | None, today: date) -> list[Covered]:
    """Every cell of every table of the active study, and its examples, in the study's order."""
    seen = _Seen(store, book, today)
    found = []
    for kind, name, table, benchmark, paper, quoted_from in _cells():
        cell = Covered(table=table, kind=kind, name=name, benchmark=benchmark, paper=paper, state="present")
        if kind == "quoted":
            found.append(_impossible(cell, f"quoted from {quoted_from}"))
        else:
            found.append(seen.look(cell, _result(kind, name, benchmark)))
    return found


def command(table: str, partition: str | None) -> str:
    """What makes one partition of a table and all it needs, in the environment of this process."""
    chosen = [f"{name}={shlex.quote(value)}" for name in studies.VARIABLES if (value := os.environ.get(name))]
    return " ".join([*chosen, "nift run", table, *(["--partition", partition] if partition else [])])


def _cells() -> Iterator[tuple[str, str, str, str, float | None, str | None]]:
    columns = ("kind", "name", "table", "benchmark", "paper", "quoted_from")
    yield from sql.cells(STUDY).select(columns).iter_rows()
    shown = [(row.table or "response_examples", model) for row in STUDY.examples for model in (row.before, row.after)]
    for table, model in dict.fromkeys(shown):
        yield "example", model, table, "answer", None, None


def _result(kind: str, name: str, benchmark: str) -> Place:
    """The partition a cell's number is read from."""
    if kind == "audit":
        return "content_audit", name
    if kind == "example":
        return "arena_hard_answers", name
    return RESULTS[STUDY.benchmark_of(benchmark)], name


def _impossible(cell: Covered, why: str) -> Covered:
    return Covered(**{**asdict(cell), "state": "impossible", "why": why})


class _Seen:
    """What has been found out of the store and the ledger, each partition once."""

    def __init__(self, store: Store, book: Book | None, today: date) -> None:
        self._store, self._book, self._today = store, book, today
        self._states: dict[Place, State] = {}
        self._lines: dict[Place, Line | None] = {}
        self._scored = self._scores()

    def look(self, cell: Covered, place: Place) -> Covered:
        """The cell with its state, and what is to be done about it."""
        state = self._state(place)
        why = None if state == "present" else self._first(place)
        if state == "present" and (lost := self._unshown(cell)):
            state, why = "missing", f"{lost} does not have it yet"
        if state == "present":
            return cell
        lines = self._lines_of(place)
        for line in lines:
            if line.state in ("retired", "no price"):
                return _impossible(cell, f"{line.name} ({line.role}): {line.status}")
        costs = [line.online.expected if line.online else None for line in lines]
        known = [cost for cost in costs if cost is not None]
        return Covered(
            **{
                **asdict(cell),
                "state": state,
                "why": why,
                "command": command(*place),
                "usd": sum(known) / 1e9 if len(known) == len(costs) else None,
            }
        )

    def _state(self, place: Place) -> State:
        if place not in self._states:
            self._states[place] = self._look_up(place)
        return self._states[place]

    def _look_up(self, place: Place) -> State:
        table, key = place
        step = STEPS[table]
        version = self._store.version(table, key)
        if version is None:
            return "missing"
        upstream_moved = any(self._state(upstream) != "present" for upstream in step.upstream(key))
        moved = upstream_moved or not step.is_current(self._store, key, table)
        return "stale" if moved else "present"

    def _first(self, place: Place) -> str:
        """The most upstream partition that is missing or stale, with what it is."""
        for upstream in STEPS[place[0]].upstream(place[1]):
            if self._state(upstream) != "present":
                return self._first(upstream)
        table, key = place
        said = "has not been made" if self._state(place) == "missing" else "was made from something else"
        undecided = STEPS[table].undecided(key, table) if self._state(place) == "stale" else None
        here = f"{table}/{key}" if key else table
        return f"{here} {said}" + (f" ({undecided})" if undecided else "")

    def _unshown(self, cell: Covered) -> str | None:
        """The table that lacks the number although it has been measured."""
        if cell.kind == "model" and (cell.name, STUDY.benchmark_of(cell.benchmark)) not in self._scored:
            return "benchmark_scores"
        made = cell.table in STEPS and self._store.version(cell.table, None) is None
        return cell.table if made else None

    def _scores(self) -> set[tuple[str, str]]:
        if self._store.version("benchmark_scores", None) is None:
            return set()
        scores = self._store.read("benchmark_scores", None).filter(pl.col("score").is_not_null())
        return set(scores.select("model", "benchmark").iter_rows())

    def _lines_of(self, place: Place) -> Sequence[Line]:
        """Who has still to be asked for a partition, each once, upstream first."""
        open_places: dict[Place, None] = {}

        def visit(here: Place) -> None:
            if self._state(here) == "present" or here in open_places:
                return
            for upstream in STEPS[here[0]].upstream(here[1]):
                visit(upstream)
            open_places[here] = None

        visit(place)
        return [line for here in open_places if (line := self._line(here))]

    def _line(self, place: Place) -> Line | None:
        if place not in self._lines:
            asked = plan.part(STUDY, *place)
            self._lines[place] = (
                plan.line(STUDY, asked, store=self._store, book=self._book, today=self._today) if asked else None
            )
        return self._lines[place]
