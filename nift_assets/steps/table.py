"""How a dataset is declared: a function, what it reads, what it is cut along. `graph` makes Dagster assets of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.rows import digest
from nift_assets.sql import wording
from nift_assets.steps import code, partitions, versions
from nift_assets.steps.partitions import STUDY, PartitionSet
from nift_assets.steps.versions import Numbered
from nift_assets.store import Store


@dataclass(frozen=True)
class Made:
    """What a table's function gives back when a frame is not all: metadata to look at, and files that lie beside it.

    The rows of a table that may be larger than memory come a portion at a time.
    """

    rows: pl.DataFrame | Iterator[pl.DataFrame]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


Afterwards = Callable[[Any, Mapping[str, Any]], None]
Makes = Callable[..., "pl.DataFrame | Iterator[pl.DataFrame] | Made | Mapping[str, pl.DataFrame] | Mapping[str, Made]"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One function of the graph: the tables it makes together, from what, and the version of its code.

    `version` is the number of what takes a GPU, money or hours, None for what is cheap; `plugins` are the modules of
    ours that a partition's study row loads by their name.

    With `any_of` it can make some of its tables without the others; the function is then told which are wanted. With
    `streams` it is handed no frames and reads of the stored inputs what it needs. What is made `by_hand` is left out
    when a whole study is run. What `asks` puts questions to a model, which may cost money. What `follows` costs seconds
    and nothing else, and is made after its inputs where automation is switched on.
    """

    function: Makes
    tables: tuple[str, ...]
    inputs: tuple[str, ...]
    partitions: PartitionSet | None
    rows: Callable[[str | None, str], Sequence[Any]]
    version: int | None
    plugins: Callable[[str | None, str], Sequence[ModuleType]]
    code_version: str
    group: str
    kinds: frozenset[str]
    sources: Mapping[str, str]
    pool: str | None
    metadata: Mapping[str, Any]
    any_of: bool
    streams: bool
    by_hand: bool
    asks: bool
    follows: bool
    afterwards: Afterwards | None

    @property
    def needs(self) -> str:
        """What it takes besides the tables it is made from: money, gpu, hub, or nothing."""
        return "money" if self.asks else self.pool or "nothing"

    @property
    def gathers(self) -> bool:
        """Whether it is one table of all partitions of another: it takes what there is of them."""
        return self.partitions is None and any(STEPS[name].partitions for name in self.inputs)

    @property
    def rejoins(self) -> bool:
        """Whether it reads what left its partition set and comes back: of a teacher, what was said in its audit."""
        return self.partitions is not None and any(
            back.partitions == self.partitions
            for name in self.inputs
            if STEPS[name].partitions not in (None, self.partitions)
            for back in STEPS[name]._all_upstream()
        )

    @property
    def returns(self) -> bool:
        """Whether it rejoins, or is made from something that does."""
        return self.rejoins or any(step.rejoins for step in self._all_upstream() if step.partitions == self.partitions)

    def _all_upstream(self) -> list[Step]:
        return [found for name in self.inputs for found in (STEPS[name], *STEPS[name]._all_upstream())]

    def upstream(self, key: str | None) -> list[tuple[str, str | None]]:
        """The stored tables one partition is made from, each with its partition."""
        return [
            (name, source)
            for name in self.inputs
            if partitions.is_needed(STUDY, name, self.tables[0], key)
            for source in partitions.upstream_keys(STUDY, STEPS[name].partitions, self.partitions, key)
        ]

    def refuse_missing_inputs(self, store: Store, key: str | None) -> None:
        """ValueError for a partition whose input has not been made; a table over all partitions takes what there is."""
        for name, source in self.upstream(key):
            gathered = source is not None and self.partitions is None
            if not gathered and store.version(name, source) is None:
                place = f"{name}/{source}" if source else name
                raise ValueError(f"{place} has not been made yet; materialize it first")

    def version_of(self, key: str | None, table: str) -> str:
        """The version of all code that makes a partition of a table: the step's own, and that of each plug-in."""
        plugins = dict.fromkeys(self.plugins(key, table))
        if self.version is None:
            return " ".join([self.code_version, *map(code.digest, plugins)])
        return " ".join([self.code_version, *(versions.version(versions.of_plugin(plugin)) for plugin in plugins)])

    def undecided(self, key: str | None, table: str) -> str | None:
        """What a person has to decide before the code that makes a partition has a version, None if nothing."""
        if (own := self.own_number()) is None:
            return None
        plugins = map(versions.of_plugin, dict.fromkeys(self.plugins(key, table)))
        return next((line for numbered in (own, *plugins) if (line := versions.undecided(numbered))), None)

    def own_number(self) -> Numbered | None:
        """The step as code that carries a number, if it is expensive."""
        return None if self.version is None else _numbered(self.function, self.version, self.asks)

    def inputs_version(self, store: Store, key: str | None, table: str, *, code: str | None = None) -> str:
        """The digest of all a partition of a table is made from: the code, the study's rows, and the stored inputs;
        of another version of the code, if one is given."""
        stored = [
            (name, source, version.data if (version := store.version(name, source)) else None)
            for name, source in self.upstream(key)
        ]
        return digest(code or self.version_of(key, table), list(self.rows(key, table)), stored)

    def is_current(self, store: Store, key: str | None, table: str) -> bool:
        """Whether what is stored of a partition of a table is what the step would make now."""
        version = store.version(table, key)
        if version is None:
            return False
        wanted = self.inputs_version(store, key, table)
        return version.inputs == wanted or store.taken_over(version.inputs) == wanted

    def stale(self, store: Store, key: str | None) -> tuple[str, ...]:
        """The tables to be made again for a partition: what is stored is not what the step would make now."""
        old = tuple(name for name in self.tables if not self.is_current(store, key, name))
        return old if self.any_of or not old else self.tables


STEPS: dict[str, Step] = {}
"""The step that makes each table, by the table's name; complete once `graph` has been imported."""


def table(
    *tables: str,
    group: str,
    kinds: set[str],
    inputs: Sequence[str] = (),
    source: str | Mapping[str, str] | None = None,
    by: PartitionSet | None = None,
    rows: Callable[[str | None, str], Sequence[Any]] = lambda key, table: (),
    version: int | None = None,
    plugins: Callable[[str | None, str], Sequence[ModuleType]] = lambda key, table: (),
    statement: str | None = None,
    pool: str | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
    any_of: bool = False,
    streams: bool = False,
    by_hand: bool = False,
    asks: bool = False,
    follows: bool = False,
    afterwards: Afterwards | None = None,
) -> Callable[[Makes], Step]:
    """Declares the table a function of (context, one frame per input) makes, or several that it makes together.

    The tables are `tables`, or the one the function is named after. `inputs` are other tables, `source` is something
    outside the graph, one for all tables or each its own, `by` the partition set. What a partition depends on besides
    makes it stale when it changes: `rows(key, table)`, study rows and values; the code that the function reaches; the
    SQL `statement` it runs; and `plugins(key, table)`, the modules that its row loads by their name. What takes a GPU,
    money or hours has a `version`, a number (see `versions`). With `any_of` the function can make any of its tables
    alone and takes the names of those wanted after the context. With `streams` it takes the context alone and reads its
    inputs from the store, so that they need not fit into memory. `by_hand` leaves it out of a run of the whole study,
    one that `asks` a model says so. A table that `follows` is made by itself after its inputs: never one that asks a
    model, trains, evaluates or fetches. `afterwards` is called with (context, frames of the inputs) once all that was
    made is stored, and not if anything was not.
    """

    def declare(function: Makes) -> Step:
        names = tables or (function.__name__,)
        step = Step(
            function=function,
            tables=names,
            inputs=tuple(inputs),
            partitions=by,
            rows=rows,
            version=version,
            plugins=plugins,
            code_version=_code_version(function, version, asks, statement),
            group=group,
            kinds=frozenset(kinds),
            sources=source if isinstance(source, Mapping) else dict.fromkeys(names, source) if source else {},
            pool=pool,
            metadata=metadata,
            any_of=any_of,
            streams=streams,
            by_hand=by_hand,
            asks=asks,
            follows=follows,
            afterwards=afterwards,
        )
        STEPS.update(dict.fromkeys(names, step))
        return step

    return declare


def _code_version(function: Makes, version: int | None, asks: bool, statement: str | None) -> str:
    if version is not None:
        return versions.version(_numbered(function, version, asks))
    own = code.digest(function)
    return f"{own}-{wording.digest(statement)}" if statement else own


def _numbered(function: Makes, version: int, asks: bool) -> Numbered:
    """An asking step rests on how answers are read as well, which the ledger does for it."""
    return versions.of_step(function.__name__, version, function, *((providers.answer,) if asks else ()))
