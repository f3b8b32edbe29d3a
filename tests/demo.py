"""The demo's study and its graph, for all tests that look at a real one in their own process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from nift_assets import graph, studies
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store

STUDY = studies.load("demo")
GRAPH = graph.build(STUDY)


def context(
    store: Store,
    table: str,
    key: str | None = None,
    *,
    of: Graph = GRAPH,
    book: Any = None,
    pipes: Any = None,
    dagster: Any = None,
) -> Context:
    """What the function of a table is handed for one partition, with as much at hand as a test has."""
    return Context(
        graph=of,
        partition=Partition(table, key),
        store=store,
        ledger=SimpleNamespace(book=book),
        pipes=pipes,
        dagster=dagster,
    )
