"""What the graph is cut along: each partition set is a list of rows of a study, joined row by row.

Adapters and models are sparse: only the combinations the study names exist, never a cross product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import dagster as dg

from nift_assets import benchmarks, filters, providers
from nift_assets.study import Study

PartitionSet = Literal["teacher", "reference_set", "control", "audit", "training_set", "backbone", "adapter", "model"]

# The tables that leave out what filters drop, each with the rows that name the filters.
FILTERED: dict[str, PartitionSet] = {"filtered_completions": "teacher", "training_sets": "training_set"}


@dataclass(frozen=True)
class Partitions:
    """The partition sets of a study: their keys, which are its rows' names, and which row feeds which."""

    study: Study

    def keys(self, of: PartitionSet | None) -> list[str | None]:
        """The partition keys of a set; the one key of an unpartitioned table is None."""
        return [None] if of is None else list(self._rows[of])

    def is_wanted(self, table: str, key: str | None) -> bool:
        """Whether a partition of a table is any row's business: of a model only what it is measured on."""
        return table not in self._measured or self._measured[table] in self._measured_on[str(key)]

    def is_sparse(self, table: str) -> bool:
        """Whether some partitions of a table are no row's business."""
        return table in self._measured

    def is_needed(self, upstream: str, table: str, key: str | None) -> bool:
        """Whether a partition of a table needs an upstream one: of what filters drop, only what its own row's do.

        So nobody is asked for an audit whose verdicts no filter of the row uses.
        """
        if table not in FILTERED or upstream not in self._removals:
            return True
        return self._removals[upstream] in self._rows[FILTERED[table]][str(key)].filters

    def upstream_keys(
        self, upstream: PartitionSet | None, downstream: PartitionSet | None, key: str | None
    ) -> list[str | None]:
        """The partitions of an upstream table that one partition of a downstream table is made from."""
        if upstream is None or downstream is None:
            return self.keys(upstream)
        if upstream == downstream:
            return [key]
        return list(self._sources[upstream, downstream].get(str(key), ()))

    def definition(self, of: PartitionSet | None) -> dg.PartitionsDefinition[str] | None:
        return self._definitions[of] if of else None

    def mapping(self, upstream: PartitionSet | None, downstream: PartitionSet | None) -> dg.PartitionMapping | None:
        """How Dagster joins two partition sets; None where its default is right (same set, or one unpartitioned)."""
        if upstream is None or downstream is None or upstream == downstream:
            return None
        targets: dict[str, set[str]] = {}
        for target, sources in self._sources[upstream, downstream].items():
            for source in sources:
                targets.setdefault(source, set()).add(target)
        return dg.StaticPartitionMapping(targets)

    @cached_property
    def _rows(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: {row.name: row for row in getattr(self.study, f"{name}s")} for name in get_args(PartitionSet)}

    @cached_property
    def _definitions(self) -> Mapping[str, dg.PartitionsDefinition[str]]:
        return {name: dg.StaticPartitionsDefinition(list(rows)) for name, rows in self._rows.items()}

    @cached_property
    def _measured(self) -> Mapping[str, str]:
        """The benchmark of each table that has a partition per model that is measured on it."""
        return benchmarks.tables(row.name for row in self.study.benchmarks)

    @cached_property
    def _measured_on(self) -> Mapping[str, tuple[str, ...]]:
        return {model.name: self.study.measured_on(model) for model in self.study.models}

    @cached_property
    def _removals(self) -> Mapping[str, str]:
        """The filter of each table of removals."""
        return {filters.table(row): row.name for row in self.study.filters}

    @cached_property
    def _sources(self) -> Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]]:
        """Which rows feed each row, for every pair of partition sets that meet in the graph."""
        return {pair: _by_target(links) for pair, links in _links(self.study).items()}


def _by_target(links: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    sources: dict[str, list[str]] = {}
    for source, target in links:
        sources.setdefault(target, []).append(source)
    return {target: tuple(names) for target, names in sources.items()}


def _links(study: Study) -> dict[tuple[str, str], list[tuple[str, str]]]:
    return {
        ("backbone", "teacher"): [(t.model, t.name) for t in study.teachers if providers.runs_backbone(t)],
        ("teacher", "training_set"): [(s.teacher, s.name) for s in study.training_sets if s.teacher],
        ("training_set", "teacher"): [(s.name, s.teacher) for s in study.training_sets if s.teacher],
        ("reference_set", "training_set"): [(s.reference, s.name) for s in study.training_sets if s.reference],
        ("reference_set", "audit"): [(a.name, a.name) for a in study.audits if a.kind == "reference"],
        ("teacher", "audit"): [(a.of or a.name, a.name) for a in study.audits if a.kind in ("teacher", "planted")],
        ("control", "audit"): [(a.name, a.name) for a in study.audits if a.kind == "control"],
        ("audit", "teacher"): [(a.name, a.name) for a in study.audits if a.kind == "teacher"],
        ("training_set", "adapter"): [(a.training_set, a.name) for a in study.adapters],
        ("backbone", "adapter"): [(a.backbone, a.name) for a in study.adapters],
        ("backbone", "model"): [(m.backbone, m.name) for m in study.models],
        ("adapter", "model"): [(m.adapter, m.name) for m in study.models if m.adapter],
    }
