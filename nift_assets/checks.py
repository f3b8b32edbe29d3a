"""A table held against its contract: which other tables its tests read, and what is stored held against it again."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from expectations import contract as contracts
from expectations.contract import Contract, ContractTest
from expectations.frames import Stacked, Table, conform, portions, schema
from expectations.runner import ExpectationResult, check, failing_rows
from nift_assets import benchmarks, catalogue, filters, sql
from nift_assets.assets.sql_models import absent, results_of
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import write_portions

RESULTS = "results"


@dataclass(frozen=True)
class CheckedPartition:
    """What became of each test of a stored partition, and the rows that fail."""

    partition: Partition
    results: Sequence[ExpectationResult]
    failing: Mapping[str, pl.DataFrame]

    @property
    def failed(self) -> list[ExpectationResult]:
        """The tests that failed and may not."""
        return [result for result in self.results if not result.passed and result.severity == "error"]


def check_stored(graph: Graph, store: Store, partition: Partition, tests: Collection[str] = ()) -> CheckedPartition:
    """What is stored of a partition held against its contract, or against the named tests of it; makes nothing.

    ValueError where nothing is stored of it or of what its tests read, DamagedTable if its rows are not those written.
    """
    contract = _with_tests(contracts.load(partition.table), tests)
    step = graph.tables[partition.table]
    if store.version(*partition) is None:
        raise ValueError(f"{partition} has not been made yet, so there is nothing to check; `nift run` makes it")
    named = read_by_tests(graph, contract.tests)
    with _stored(store, partition, contract) as table:
        inputs = inputs_of_tests(
            graph, step, store, contract.tests, _inputs(graph, store, partition, step, named), read_by_itself=False
        )
        results = check(table, contract, inputs)
        failing = failing_rows(table, contract, results, inputs)
    return CheckedPartition(partition, results, failing)


def inputs_of_tests(
    graph: Graph,
    step: Step,
    store: Store,
    tests: Sequence[ContractTest],
    tables: Mapping[str, Table | Stacked],
    *,
    read_by_itself: bool = True,
) -> dict[str, Table | Stacked]:
    """The tables that the tests of a step's contracts may name, by name: those the step was handed or has held open,
    the study's rows, and what stands for several of them; also the inputs without partitions that it reads by
    itself."""
    study = graph.study
    named = read_by_tests(graph, tests)
    given = {name: table for name, table in tables.items() if step.is_handed_frames or name in named}
    frames = {name: table for name, table in given.items() if isinstance(table, pl.DataFrame)}
    alone = _read_by_itself(graph, step, store, named - given.keys()) if read_by_itself else {}
    return {
        **given,
        **absent(study),
        **alone,
        **sql.named_study_rows(study.without_places(), _texts(tests)),
        **_removals(study, given),
        **results_of(study, frames),
    }


def _removals(study: Study, tables: Mapping[str, Table | Stacked]) -> dict[str, Stacked]:
    """As the SQL models have them, without a copy of their texts."""
    names = [filters.table(row) for row in study.filters]
    if not set(names) <= tables.keys():
        return {}
    given = [tables[name] for name in names]
    parts = [part for table in given for part in (table.tables if isinstance(table, Stacked) else (table,))]
    return {sql.REMOVALS: Stacked(tuple(parts), schema(contracts.load(sql.REMOVALS)))}


def read_by_tests(graph: Graph, tests: Sequence[ContractTest]) -> set[str]:
    """The words of the tests, among them the tables that they read, and those of what stands for several."""
    named = {word for text in _texts(tests) for word in re.findall(r"\w+", text)}
    study = graph.study
    if sql.REMOVALS in named:
        named |= {filters.table(row) for row in study.filters}
    if RESULTS in named:
        named |= {benchmarks.results_table(row.name) for row in study.benchmarks}
    return named


def _texts(tests: Sequence[ContractTest]) -> list[str]:
    return [str(text) for test in tests for text in (test.arguments.get("sql", ""), test.arguments.get("to", ""))]


def _with_tests(contract: Contract, names: Collection[str]) -> Contract:
    tests = tuple(test for test in contract.tests if not names or test.name in names)
    return replace(contract, tests=tests)


@contextmanager
def _stored(store: Store, partition: Partition, contract: Contract) -> Iterator[Table]:
    """A stored table in the order and of the types of its contract: the file itself where that is so already."""
    if store.is_remote:
        yield conform(store.read(*partition), contract)
        return
    path = Path(catalogue.plain(store.checked_path(*partition)))
    if dict(pl.read_parquet_schema(path)) == schema(contract):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="nift-check-") as folder:
        draft = Path(folder, "table")
        first = pl.DataFrame(schema=pl.read_parquet_schema(path))
        rows = (conform(portion, contract) for portion in (first, *portions(path)))
        write_portions(draft, rows, "")
        yield draft


def _inputs(
    graph: Graph, store: Store, partition: Partition, step: Step, named: Collection[str]
) -> dict[str, Table | Stacked]:
    """The stored inputs that tests name; of a table over all partitions what there is of each."""
    inputs: dict[str, Table | Stacked] = {}
    # They are looked at here, and have no texts of documents.
    results = {benchmarks.results_table(row.name) for row in graph.study.benchmarks}
    for name in (name for name in step.inputs if name in named):
        above = [place for place in graph.upstream(partition) if place.table == name]
        gathers = step.partitions is None and graph.tables[name].partitions is not None
        if not gathers and (missing := [place for place in above if store.version(*place) is None]):
            raise ValueError(f"{missing[0]} has not been made, and the tests of {partition.table} read it")
        if graph.tables[name].partitions is None:
            inputs[name] = store.table(name)
            continue
        there = [place for place in above if store.version(*place) is not None]
        inputs[name] = _below_each_other(store, name, there, in_files=name not in results)
    return inputs


def _below_each_other(store: Store, table: str, places: Sequence[Partition], *, in_files: bool) -> Table | Stacked:
    """Partitions of a table below each other: in the files that they lie in where each has the declared columns, else
    as a frame, in which a column that one lacks is null."""
    declared = schema(contracts.load(table))
    if in_files and places and not store.is_remote:
        files = [Path(catalogue.plain(store.checked_path(*place))) for place in places]
        if all(dict(pl.read_parquet_schema(file)) == declared for file in files):
            return files[0] if len(files) == 1 else Stacked(tuple(files), declared)
    rows = pl.concat([pl.DataFrame(schema=declared), *(store.read(*place) for place in places)], how="diagonal")
    return rows.select(*declared)


def _read_by_itself(graph: Graph, step: Step, store: Store, named: Collection[str]) -> dict[str, Table]:
    """The inputs without partitions that a step was not handed and that the tests of its contract name."""
    return {
        name: store.table(name)
        for name in step.inputs
        if step.streams and name in named and graph.tables[name].partitions is None
    }
