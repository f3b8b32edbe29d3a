"""What a step's function is handed besides the frames of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.study import Study

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

    `dagster` is Dagster's own context: its log, its run, its instance.
    """

    graph: Graph
    partition: Partition
    store: Store
    ledger: Ledger
    pipes: Pipes
    dagster: dg.AssetExecutionContext

    @property
    def study(self) -> Study:
        return self.graph.study

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
