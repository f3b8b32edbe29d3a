"""How a dataset is declared: a function, what it reads, what it is cut along. `graph` makes Dagster assets of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.sql import wording
from nift_assets.steps import code, versions
from nift_assets.steps.partitions import PartitionSet
from nift_assets.steps.versions import NumberedCode
from nift_assets.store import Store
from nift_assets.study import Study


@dataclass(frozen=True)
class TableOutput:
    """What a table's function gives back when a frame is not all: metadata to look at, and files that lie beside it.

    The rows of a table that may be larger than memory come a portion at a time; its metadata may be completed
    meanwhile.
    """

    rows: pl.DataFrame | Iterator[pl.DataFrame]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


Afterwards = Callable[[Any, Mapping[str, Any]], None]
# A file that a row names, or a function of it.
Plugin = ModuleType | Callable[..., Any]
Makes = Callable[
    ..., "pl.DataFrame | Iterator[pl.DataFrame] | TableOutput | Mapping[str, pl.DataFrame] | Mapping[str, TableOutput]"
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One function of the graph of a study: the tables it makes together, from what, and the version of its code.

    `version` is the number of what takes a GPU, money or hours, None for what is cheap; `plugins` are the modules of
    ours that a partition's study row loads by their name. `beside` says what stands in a file beside the study's tables
    that it reads, and nothing where there is none.

    With `any_of` it can make some of its tables without the others; the function is then told which are wanted. With
    `streams` it is handed no frames and reads of the stored inputs what it needs. What judges each document alone is
    called once per portion of the documents, which are cut by the column `portioned_by`; of the metadata of a portion
    what `adds_up` does. What is made `by_hand` is left out when a whole study is run. What `asks` puts questions to a
    model, which may cost money. What `follows` costs seconds and nothing else, and is made after its inputs where
    automation is switched on.
    """

    function: Makes
    tables: tuple[str, ...]
    inputs: tuple[str, ...]
    partitions: PartitionSet | None
    rows: Callable[[str | None, str], Sequence[Any]]
    beside: Callable[[Store], Sequence[Any]]
    version: int | None
    plugins: Callable[[str | None, str], Sequence[Plugin]]
    code_version: str
    group: str
    kinds: frozenset[str]
    sources: Mapping[str, str]
    pool: str | None
    metadata: Mapping[str, Any]
    any_of: bool
    streams: bool
    portioned_by: str | None
    adds_up: Collection[str]
    by_hand: bool
    asks: bool
    follows: bool
    afterwards: Afterwards | None

    @property
    def is_handed_frames(self) -> bool:
        """Whether its inputs are read whole for it."""
        return not (self.streams or self.portioned_by)

    @property
    def needs(self) -> str:
        """What it takes besides the tables it is made from: money, gpu, hub, or nothing."""
        return "money" if self.asks else self.pool or "nothing"

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

    def own_number(self) -> NumberedCode | None:
        """The step as code that carries a number, if it is expensive."""
        return None if self.version is None else _numbered(self.function, self.tables, self.version, self.asks)


@dataclass(frozen=True, eq=False)
class Declaration:
    """A function and what was declared of it, from which `of` makes the step of any study."""

    function: Makes
    of: Callable[[Study], Step]


# A partition's key is the name of its row; of a table without partitions it is None.
RowsOf = Callable[[Study, Any, str], Sequence[Any]]
Plugins = Callable[[Study, Any, str], Sequence[Plugin]]
Source = str | Mapping[str, str] | None


def table(
    *tables: str,
    group: str,
    kinds: set[str],
    inputs: Sequence[str] | Callable[[Study], Sequence[str]] = (),
    source: Source | Callable[[Study], Source] = None,
    by: PartitionSet | None = None,
    rows: RowsOf = lambda study, key, table: (),
    beside: Callable[[Store], Sequence[Any]] = lambda store: (),
    version: int | None = None,
    plugins: Plugins = lambda study, key, table: (),
    statement: str | None = None,
    pool: str | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
    any_of: bool = False,
    streams: bool = False,
    portioned_by: str | None = None,
    adds_up: Collection[str] = (),
    by_hand: bool = False,
    asks: bool = False,
    follows: bool = False,
    afterwards: Afterwards | None = None,
) -> Callable[[Makes], Declaration]:
    """Declares the table a function of (context, one frame per input) makes, or several that it makes together.

    The tables are `tables`, or the one the function is named after. `inputs` are other tables, `source` is something
    outside the graph, one for all tables or each its own; either may be a function of the study. `by` is the partition
    set. What a partition depends on besides makes it stale when it changes: `rows(study, key, table)`, study rows and
    values; `beside(store)`, what stands in a file that no step makes; the code that the function reaches; the SQL
    `statement` it runs; and `plugins(study, key, table)`, the modules that its row loads by their name, which for what
    is cheap are the same in all partitions. What takes a GPU, money or hours has a `version`, a number (see
    `versions`). With `any_of` the function can make any of its tables alone and takes the names of those wanted after
    the context. With `streams` it takes the context alone and reads its inputs from the store, so that they need not
    fit into memory. With `portioned_by="sample_rank"` it takes frames, and is called once per portion of the documents,
    so that neither they nor what it makes need fit: only for what comes out the same however the documents are cut.
    Numbers in its metadata that `adds_up` names are added up over the portions. `by_hand` leaves it out of a run of the
    whole study, one that `asks` a model says so. A table that `follows` is made by itself after its inputs: never one
    that asks a model, trains, evaluates or fetches. `afterwards` is called with (context, frames of the inputs) once
    all that was made is stored, and not if anything was not.
    """

    def declare(function: Makes) -> Declaration:
        names = tables or (function.__name__,)

        def of(study: Study) -> Step:
            made_from = source(study) if callable(source) else source
            return Step(
                function=function,
                tables=names,
                inputs=tuple(inputs(study) if callable(inputs) else inputs),
                partitions=by,
                rows=partial(rows, study),
                beside=beside,
                version=version,
                plugins=partial(plugins, study),
                code_version=_code_version(function, names, version, asks, statement),
                group=group,
                kinds=frozenset(kinds),
                sources=_sources(made_from, names),
                pool=pool,
                metadata=metadata,
                any_of=any_of,
                streams=streams,
                portioned_by=portioned_by,
                adds_up=adds_up,
                by_hand=by_hand,
                asks=asks,
                follows=follows,
                afterwards=afterwards,
            )

        return Declaration(function, of)

    return declare


def _sources(source: Source, tables: Sequence[str]) -> Mapping[str, str]:
    """What is outside the graph, by the table that is made from it."""
    if isinstance(source, str):
        return dict.fromkeys(tables, source)
    return source or {}


def _code_version(
    function: Makes, tables: Sequence[str], version: int | None, asks: bool, statement: str | None
) -> str:
    if version is not None:
        return versions.version(_numbered(function, tables, version, asks))
    own = code.digest(function)
    return f"{own}-{wording.digest(statement)}" if statement else own


def _numbered(function: Makes, tables: Sequence[str], version: int, asks: bool) -> NumberedCode:
    """An asking step rests on how answers are read as well, which the ledger does for it. A step is called as its
    table, or as its function if it makes several."""
    name = tables[0] if len(tables) == 1 else function.__name__
    return versions.of_step(name, version, function, *((providers.answer,) if asks else ()))
