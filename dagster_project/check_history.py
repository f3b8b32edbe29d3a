"""What the Dagster instance remembers of the checks, and the tables as they are documented with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from expectations import contract as contracts
from expectations.contract import Contract
from expectations.results import LastResult
from nift_assets import graph as graphs
from nift_assets.pages import docs
from nift_assets.pages.docs import DocumentedTable, Stored
from nift_assets.steps import check_results
from nift_assets.steps.lineage import Graph
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

DOCS = "docs.html"


def contracts_page(study: Study, store: Store, instance: dg.DagsterInstance | None) -> bytes:
    """The page of all tables of a study as they stand now."""
    tables = documented(graphs.build(study), store, instance)
    return docs.page(study, tables, made_at=datetime.now(UTC)).encode()


def refresh_contracts_page(study: Study, store: Store, instance: dg.DagsterInstance) -> None:
    """Makes the page beside the study's tables if there is none, or one from before the last thing a run did."""
    path = store.folder(DOCS)
    if path.exists():
        latest = instance.get_run_records(limit=1, order_by="update_timestamp")
        if not latest or latest[0].update_timestamp.timestamp() < path.stat().st_mtime:
            return
    store.write_bytes(contracts_page(study, store, instance), DOCS)


def damaged_history(file: Path) -> str:
    """What is wrong with a database of Dagster's instance, and the remedy."""
    return (
        f"{file}, in which Dagster keeps its runs, is damaged; move the folder {file.parent} away, and a new one is "
        "made: tables and what was paid for lie elsewhere"
    )


def documented(graph: Graph, store: Store, instance: dg.DagsterInstance | None) -> list[DocumentedTable]:
    """All tables of a study, from articles to scores, with the last results the instance knows of."""
    # Models are made from nothing of ours, so they would come first.
    ordered = sorted(graph.steps, key=lambda step: step.group != "data")
    return [_table(graph, step, name, store, instance) for step in ordered for name in step.tables]


def _table(graph: Graph, step: Step, name: str, store: Store, instance: dg.DagsterInstance | None) -> DocumentedTable:
    promised = contracts.load(name)
    keys = graph.keys(name)
    read_by = [table for other in graph.steps if name in other.inputs for table in other.tables]
    return DocumentedTable(
        contract=promised,
        group=step.group,
        made_by=" and ".join(sorted(step.kinds)),
        partitions=step.partitions.replace("_", " ") if step.partitions else None,
        upstream=[*([step.sources[name]] if name in step.sources else []), *step.inputs],
        downstream=read_by,
        stored=[_stored(store, name, key) for key in keys],
        results=_results(instance, promised, keys) if instance else {},
    )


def _stored(store: Store, table: str, partition: str | None) -> Stored:
    try:
        store.check(table, partition)
        return Stored(partition=partition, rows=store.rows(table, partition))
    except DamagedTable as damage:
        return Stored(partition=partition, rows=None, damage=str(damage))


def _results(
    instance: dg.DagsterInstance, promised: Contract, keys: Sequence[str | None]
) -> dict[str, list[LastResult]]:
    """The last results of each check, on each partition the study has, in the study's order."""
    try:
        of_partitions = [check_results.last(instance, promised.table, key) for key in keys]
    except json.JSONDecodeError as error:  # its pages are whole, and what stands in them is not
        raise ValueError(damaged_history(Path(instance.root_directory, "history", "runs", "index.db"))) from error
    return {
        test.name: [of_partition[test.name] for of_partition in of_partitions if test.name in of_partition]
        for test in promised.tests
    }
