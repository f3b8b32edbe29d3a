"""The graph of a study: its steps in order, what each partition is made from, and how what is stored of it stands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeVar

from nift_assets.rows import digest
from nift_assets.steps.partitions import Partitions
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable, Version

Node = TypeVar("Node")
Freshness = Literal["present", "stale", "missing"]


class Partition(NamedTuple):
    """One partition of a table; of a table without partitions the key is None."""

    table: str
    key: str | None

    def __str__(self) -> str:
        return f"{self.table}/{self.key}" if self.key else self.table


class PartitionState(NamedTuple):
    """How a partition stands, and why it is not present; what is stale would come out otherwise now."""

    kind: Freshness
    why: str | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """All steps of a study, upstream before downstream."""

    study: Study
    steps: tuple[Step, ...]

    @cached_property
    def tables(self) -> Mapping[str, Step]:
        """The step that makes each table, by the table's name."""
        return {table: step for step in self.steps for table in step.tables}

    @cached_property
    def partitions(self) -> Partitions:
        return Partitions(self.study)

    def keys(self, table: str) -> list[str | None]:
        """The keys of all partitions of a table."""
        return self.partitions.keys(self.tables[table].partitions)

    def upstream(self, partition: Partition) -> list[Partition]:
        """The stored tables one partition is made from, each with its partition."""
        step = self.tables[partition.table]
        return [
            Partition(name, key)
            for name in step.inputs
            if self.partitions.is_needed(name, step.tables[0], partition.key)
            for key in self.partitions.upstream_keys(self.tables[name].partitions, step.partitions, partition.key)
        ]

    def ancestors_of(self, partition: Partition) -> list[Partition]:
        """The tables a partition rests on, nearest first, up to tables over all partitions, whose own rest on more
        than it."""

        def own(below: Partition) -> list[Partition]:
            gathers = self.tables[below.table].partitions is None
            return [above for above in self.upstream(below) if above.key is None or not gathers]

        return nearest_first([partition], own)[1:]

    def ancestors(self, step: Step) -> Collection[Step]:
        """All steps that a step is made from."""
        return self._above[step]

    def merges_partitions(self, step: Step) -> bool:
        """Whether it is one table of all partitions of another: it takes what there is of them."""
        return step.partitions is None and any(self.tables[name].partitions for name in step.inputs)

    def reads_own_audit(self, step: Step) -> bool:
        """Whether it reads what left its partition set and comes back: of a teacher, what was said in its audit."""
        return step in self._reading_own_audit

    def follows_own_audit(self, step: Step) -> bool:
        """Whether it rejoins, or is made from something that does."""
        return step in self._following_own_audit

    @cached_property
    def _above(self) -> Mapping[Step, Collection[Step]]:
        return {step: upstream_first([step], self._inputs)[:-1] for step in self.steps}

    @cached_property
    def _reading_own_audit(self) -> Collection[Step]:
        return {
            step
            for step in self.steps
            if step.partitions is not None
            for left in self._inputs(step)
            if left.partitions not in (None, step.partitions)
            if any(back.partitions == step.partitions for back in self._above[left])
        }

    @cached_property
    def _following_own_audit(self) -> Collection[Step]:
        return {
            step
            for step in self.steps
            if step in self._reading_own_audit
            or any(up in self._reading_own_audit for up in self._above[step] if up.partitions == step.partitions)
        }

    def _inputs(self, step: Step) -> list[Step]:
        return [self.tables[name] for name in step.inputs]

    def inputs_version(
        self,
        store: Store,
        partition: Partition,
        *,
        code: str | None = None,
        read: Mapping[Partition, Version | None] = MappingProxyType({}),
    ) -> str:
        """The digest of all a partition is made from: the code, the study's rows, and the stored inputs; of another
        version of the code, if one is given. Of inputs that were `read` it is the version of the files that were: what
        is stored by now may be another."""
        step = self.tables[partition.table]
        stored = [
            (*above, version.data if (version := read[above] if above in read else store.version(*above)) else None)
            for above in self.upstream(partition)
        ]
        code = code or step.version_of(partition.key, partition.table)
        return digest(code, [*step.rows(partition.key, partition.table), *step.beside(store)], stored)

    def is_current(self, store: Store, partition: Partition) -> bool:
        """Whether what is stored of a partition is what its step would make now, from what is stored upstream."""
        try:
            version = store.version(*partition)
        except DamagedTable:
            return False
        if version is None:
            return False
        wanted = self.inputs_version(store, partition)
        return version.inputs == wanted or store.taken_over(version.inputs) == wanted

    def refuse_missing_inputs(
        self, store: Store, partition: Partition, read: Mapping[Partition, Version | None] = MappingProxyType({})
    ) -> None:
        """ValueError for a partition whose input has not been made, or had not when it was `read`; a table over all
        partitions takes what there is."""
        step = self.tables[partition.table]
        for above in self.upstream(partition):
            gathered = above.key is not None and step.partitions is None
            if not gathered and (read[above] if above in read else store.version(*above)) is None:
                raise ValueError(f"{above} has not been made yet; materialize it first")


def ordered(study: Study, steps: Sequence[Step]) -> Graph:
    """The graph of a study's steps, which must not make a table twice or go round in a circle."""
    made_by: dict[str, Step] = {}
    for step in steps:
        for table in step.tables:
            assert table not in made_by, f"two steps make {table}"
            made_by[table] = step
    # What it gives as an order goes level by level; runs and pages follow the branches.
    TopologicalSorter({table: made_by[table].inputs for table in made_by}).prepare()
    return Graph(study, tuple(upstream_first(steps, lambda step: [made_by[name] for name in step.inputs])))


class PartitionStates:
    """How the partitions of a graph stand in a store, each looked up once.

    A partition is stale if it was made from something else than its step would take now, if anything upstream is not
    present, or if a table that is made together with it is not. With `within` only what is among these is looked
    at upstream; with `seen` what it does not know of counts as missing.
    """

    def __init__(
        self,
        graph: Graph,
        store: Store,
        *,
        within: Collection[Partition] | None = None,
        seen: Callable[[Partition], bool] | None = None,
    ) -> None:
        self._graph, self._store, self._within, self._seen = graph, store, within, seen
        self._states: dict[Partition, PartitionState] = {}
        self._there: dict[Partition, bool] = {}
        self._damage: dict[Partition, str] = {}

    def state(self, partition: Partition) -> PartitionState:
        """How it stands, and why it is not present: the first that is missing or stale by itself, upstream first."""
        if partition not in self._states:
            self._states[partition] = self._look_up(partition)
        return self._states[partition]

    def is_present(self, partition: Partition) -> bool:
        return self.state(partition).kind == "present"

    def not_present(self, partition: Partition) -> list[Partition]:
        """It and all it is made from, as far as these are not present, upstream first."""

        def open_ones(partitions: Iterable[Partition]) -> list[Partition]:
            return [partition for partition in partitions if not self.is_present(partition)]

        return upstream_first(open_ones([partition]), lambda partition: open_ones(self._upstream(partition)))

    def _upstream(self, partition: Partition) -> list[Partition]:
        return [above for above in self._graph.upstream(partition) if self._within is None or above in self._within]

    def _look_up(self, partition: Partition) -> PartitionState:
        kind: Freshness = "stale" if self._is_there(partition) else "missing"
        for above in self._upstream(partition):
            if not self.is_present(above):
                return PartitionState(kind, self.state(above).why)
        step = self._graph.tables[partition.table]
        together = () if step.any_of else (Partition(table, partition.key) for table in step.tables)
        reasons = map(self._why, dict.fromkeys((partition, *together)))
        why = next((why for why in reasons if why), None)
        return PartitionState(kind, why) if why else PartitionState("present")

    def _is_there(self, partition: Partition) -> bool:
        if partition not in self._there:
            try:
                is_stored = self._store.version(*partition) is not None
            except DamagedTable as damage:
                is_stored, self._damage[partition] = False, str(damage)
            self._there[partition] = is_stored and (self._seen is None or self._seen(partition))
        return self._there[partition]

    def _why(self, partition: Partition) -> str | None:
        """What is wrong with it by itself, whatever it is made from."""
        if not self._is_there(partition):
            return self._damage.get(partition) or f"{partition} has not been made"
        try:
            if self._graph.is_current(self._store, partition):
                return None
        except DamagedTable as damage:  # of an input that was not looked at
            return str(damage)
        undecided = self._graph.tables[partition.table].undecided(partition.key, partition.table)
        return f"{partition} was made from something else" + (f" ({undecided})" if undecided else "")


def nearest_first(starts: Iterable[Node], upstream: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """The starts and all they are made from, each once: each before what is above it."""
    return [node for node, is_done in _visits(starts, upstream, set()) if not is_done]


def upstream_first(starts: Iterable[Node], upstream: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """The starts and all they are made from, each once: each after what is above it."""
    return [node for node, is_done in _visits(starts, upstream, set()) if is_done]


def _visits(
    nodes: Iterable[Node], upstream: Callable[[Node], Iterable[Node]], seen: set[Node]
) -> Iterator[tuple[Node, bool]]:
    """Every node twice, branch by branch: when it is reached, and when all above it is done."""
    for node in nodes:
        if node not in seen:
            seen.add(node)
            yield node, False
            yield from _visits(upstream(node), upstream, seen)
            yield node, True
