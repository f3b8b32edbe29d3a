"""Every cell of the study's tables: whether its number is there, and if not, what would fill it and what that costs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

import polars as pl

from nift_assets import benchmarks, environment, sql
from nift_assets.costs import plan
from nift_assets.costs.plan import PlanRow
from nift_assets.rows import Example
from nift_assets.steps.lineage import Freshness, Graph, Partition, PartitionStates
from nift_assets.store import Store, TolerantStore
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book

CellState = Literal[Freshness, "impossible"]
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
class CellCoverage:
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
    state: CellState
    why: str | None = None
    command: str | None = None
    usd: float | None = None


def frame(graph: Graph, store: Store, book: Book | None, today: date) -> pl.DataFrame:
    """One row per cell of every table of the study, in the study's order."""
    return pl.DataFrame([asdict(cell) for cell in covered(graph, store, book, today)], schema=SCHEMA, orient="row")


def covered(graph: Graph, store: Store, book: Book | None, today: date) -> list[CellCoverage]:
    """Every cell of every table of the study, and its examples, in the study's order."""
    seen = _Seen(graph, store, book, today)
    cells = []
    for kind, name, table, benchmark, paper, quoted_from in _cells(graph.study):
        cell = CellCoverage(table=table, kind=kind, name=name, benchmark=benchmark, paper=paper, state="present")
        if kind == "quoted":
            cells.append(_impossible(cell, f"quoted from {quoted_from}"))
        else:
            cells.append(seen.look(cell, _result(graph.study, kind, name, benchmark)))
    return cells


def command(partition: Partition) -> str:
    """What makes one partition of a table, all it needs and the tables that show it, in the environment of this
    process."""
    table, key = partition
    chosen = [f"{name}={shlex.quote(value)}" for name, value in environment.of_the_study().items()]
    return " ".join([*chosen, "nift run", table, *(["--partition", key] if key else []), "--scores"])


def _cells(study: Study) -> Iterator[tuple[str, str, str, str, float | None, str | None]]:
    columns = ("kind", "name", "table", "benchmark", "paper", "quoted_from")
    yield from sql.cells(study).select(columns).iter_rows()
    shown = [(row.table or "response_examples", model) for row in study.examples for model in (row.before, row.after)]
    for table, model in dict.fromkeys(shown):
        yield "example", model, table, "answer", None, None


def _result(study: Study, kind: str, name: str, benchmark: str) -> Partition:
    """The partition a cell's number is read from."""
    if kind == "audit":
        return Partition("content_audit", name)
    if kind == "example":
        return Partition(benchmarks.answers_table(Example.BENCHMARK), name)
    return Partition(benchmarks.results_table(study.benchmark_of(benchmark)), name)


def _impossible(cell: CellCoverage, why: str) -> CellCoverage:
    return CellCoverage(**{**asdict(cell), "state": "impossible", "why": why})


class _Seen:
    """What has been found out of the store and the ledger, each partition once."""

    def __init__(self, graph: Graph, store: Store, book: Book | None, today: date) -> None:
        # A damaged table is one to be made; the cells that need it say so.
        self._store = TolerantStore(root=store.root, study=store.study)
        self._graph, self._book, self._today = graph, book, today
        self._standing = PartitionStates(graph, store)
        self._lines: dict[Partition, PlanRow | None] = {}
        self._scored = self._scores()

    def look(self, cell: CellCoverage, partition: Partition) -> CellCoverage:
        """The cell with its state, and what is to be done about it."""
        state, why = self._standing.state(partition)
        if state == "present" and (lost := self._unshown(cell)):
            state, why = "missing", lost
        if state == "present":
            return cell
        lines = self._lines_of(partition)
        for line in lines:
            if line.state in ("retired", "no price"):
                return _impossible(cell, f"{line.name} ({line.role}): {line.status}")
        costs = [line.online.expected if line.online else None for line in lines]
        known_costs = [cost for cost in costs if cost is not None]
        return CellCoverage(
            **{
                **asdict(cell),
                "state": state,
                "why": why,
                "command": command(partition),
                "usd": sum(known_costs) / 1e9 if len(known_costs) == len(costs) else None,
            }
        )

    def _unshown(self, cell: CellCoverage) -> str | None:
        """Why a table lacks the number although it has been measured."""
        if cell.kind == "model" and (cell.name, self._measure(cell)) not in self._scored:
            scores = str(self._store.path("benchmark_scores", None))
            return self._store.damaged.get(scores, "benchmark_scores does not have it yet")
        try:
            unmade = cell.table in self._graph.tables and self._store.version(cell.table, None) is None
        except DamagedTable as damage:
            return str(damage)
        return f"{cell.table} does not have it yet" if unmade else None

    def _measure(self, cell: CellCoverage) -> str:
        """The number of the benchmark that a cell shows; a task's stands there with the first."""
        numbers = [measure.name for measure in benchmarks.load(self._graph.study.benchmark_of(cell.benchmark)).MEASURES]
        return cell.benchmark if cell.benchmark in numbers else numbers[0]

    def _scores(self) -> set[tuple[str, str]]:
        scores = self._store.find("benchmark_scores", None, ["model", "benchmark", "score"])
        if scores is None:
            return set()
        return set(scores.filter(pl.col("score").is_not_null()).select("model", "benchmark").iter_rows())

    def _lines_of(self, partition: Partition) -> Sequence[PlanRow]:
        """Who has still to be asked for a partition, each once, upstream first."""
        return [line for here in self._standing.not_present(partition) if (line := self._line(here))]

    def _line(self, partition: Partition) -> PlanRow | None:
        if partition not in self._lines:
            study, asked = self._graph.study, plan.planned_partition(self._graph.study, *partition)
            self._lines[partition] = (
                plan.plan_row(study, asked, store=self._store, book=self._book, today=self._today) if asked else None
            )
        return self._lines[partition]
