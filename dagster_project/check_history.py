"""What the Dagster instance remembers of the checks, and the tables as they are documented with it."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from expectations import contract as contracts
from expectations.contract import Contract
from expectations.results import LastResult
from nift_assets.pages.docs import DocumentedTable, Stored
from nift_assets.steps import check_results
from nift_assets.steps.lineage import Graph
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.table_files import DamagedTable


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
    of_partitions = [check_results.last(instance, promised.table, key) for key in keys]
    return {
        test.name: [of_partition[test.name] for of_partition in of_partitions if test.name in of_partition]
        for test in promised.tests
    }
