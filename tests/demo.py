"""The demo's study and its graph, for all tests that look at a real one in their own process."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import dagster as dg

from nift_assets import graph, studies
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store

STUDY = studies.load("demo")
GRAPH = graph.build(STUDY)


@cache
def assets(of: Graph = GRAPH) -> dict[str, dg.AssetsDefinition]:
    """The steps of a graph as Dagster has them, by their first tables: made when a test asks for them, and once."""
    return {step.tables[0]: graph.asset_definition(of, step) for step in of.steps}


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
