"""What a step's function is handed besides the frames of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg
import polars as pl

from expectations import contract
from expectations.frames import schema
from nift_assets.steps import revisions
from nift_assets.steps.inputs import StoredInputs
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book


class Ledger(Protocol):
    """The ledger of requests and answers, which is opened when it is first used."""

    @property
    def book(self) -> Book: ...


class Pipes(Protocol):
    """What starts a process and hands its progress on; another machine is another one of these."""

    def run(self, *, command: list[str], context: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """The partition that is being made, the graph it is of, and what is at hand to make it.

    `inputs` is what a step that is handed no frames reads. `dagster` is Dagster's own context: its log, its run, its
    instance.
    """

    graph: Graph
    partition: Partition
    store: Store
    ledger: Ledger
    pipes: Pipes
    dagster: dg.AssetExecutionContext
    inputs: StoredInputs = field(default_factory=StoredInputs)

    @cached_property
    def study(self) -> Study:
        """The study as this partition is made from it: what the Hub has no revision of is pinned, and only who copies a
        model's folder knows where it lies."""
        pinned = revisions.pinned(self.graph.study, self.store, self.partition)
        return pinned if self.partition.table == "backbones" else pinned.without_places()

    @property
    def key(self) -> str:
        """The name of the study's row that this partition is of."""
        assert self.partition.key is not None, f"{self.partition.table} has no partitions"
        return self.partition.key

    @property
    def book(self) -> Book:
        return self.ledger.book

    def log(self, message: str) -> None:
        """A line for the person who follows the run."""
        self.dagster.log.info(message)

    def warn(self, message: str) -> None:
        """A line that the person who follows the run is to have at once."""
        self.dagster.log.warning(message)


def gathered(context: Context, table: str, *columns: str) -> pl.DataFrame:
    """What there is of all partitions of a table, below each other, whole or some columns of it; what is damaged is
    left out, and said."""
    declared = schema(contract.load(table))
    shown = columns or tuple(declared)
    frames = [pl.DataFrame(schema={name: declared[name] for name in shown})]
    for key in context.graph.keys(table):
        try:
            stored = context.store.find(table, key, columns or None)
        except DamagedTable as damage:
            context.warn(f"left out: {damage}")
            continue
        if stored is not None:
            frames.append(stored)
    # A partition may be older than a column of the contract: what it lacks is null until it is made again.
    return pl.concat(frames, how="diagonal").select(shown)
