"""What the graph is cut along: each partition set is a list of rows of the active study, joined row by row.

Adapters and models are sparse: only the combinations the study names exist, never a cross product.
"""

from __future__ import annotations

from typing import Literal, get_args

import dagster as dg

from nift_assets import filters, providers, studies
from nift_assets.study import Study

PartitionSet = Literal["teacher", "reference_set", "control", "audit", "training_set", "backbone", "adapter", "model"]

STUDY = studies.active()

# The tables of a benchmark, each a partition per model. A model that is not measured on it has none.
MEASURED = {
    "mt_bench_answers": "mt_bench",
    "mt_bench_judgments": "mt_bench",
    "arena_hard_answers": "arena_hard",
    "arena_hard_judgments": "arena_hard",
    "ifeval": "ifeval",
    "open_llm_leaderboard": "open_llm_leaderboard",
}

# The tables that leave out what filters drop, each with the rows that name the filters.
FILTERED: dict[str, PartitionSet] = {"filtered_completions": "teacher", "training_sets": "training_set"}


def keys(study: Study, partitions: PartitionSet | None) -> list[str | None]:
    """The partition keys of a set, which are its rows' names; the one key of an unpartitioned table is None."""
    if partitions is None:
        return [None]
    return [row.name for row in getattr(study, f"{partitions}s")]


def is_wanted(study: Study, table: str, key: str | None) -> bool:
    """Whether a partition of a table is any row's business: of a model only what it is measured on."""
    return table not in MEASURED or MEASURED[table] in study.measured_on(study.model(str(key)))


def is_needed(study: Study, upstream: str, table: str, key: str | None) -> bool:
    """Whether a partition of a table needs an upstream one: of what filters drop, only what its own row's do.

    So nobody is asked for an audit whose verdicts no filter of the row uses.
    """
    if table not in FILTERED or upstream not in (removals := {filters.table(row): row.name for row in study.filters}):
        return True
    row = next(row for row in getattr(study, f"{FILTERED[table]}s") if row.name == key)
    return removals[upstream] in row.filters


def upstream_keys(
    study: Study, upstream: PartitionSet | None, downstream: PartitionSet | None, key: str | None
) -> list[str | None]:
    """The partitions of an upstream table that one partition of a downstream table is made from."""
    if upstream is None or downstream is None:
        return keys(study, upstream)
    if upstream == downstream:
        return [key]
    return [source for source, target in _links(study)[upstream, downstream] if target == key]


def definition(partitions: PartitionSet | None) -> dg.PartitionsDefinition[str] | None:
    return DEFINITIONS[partitions] if partitions else None


def mapping(upstream: PartitionSet | None, downstream: PartitionSet | None) -> dg.PartitionMapping | None:
    """How Dagster joins two partition sets; None where its default is right (same set, or one side unpartitioned)."""
    if upstream is None or downstream is None or upstream == downstream:
        return None
    targets: dict[str, set[str]] = {}
    for source, target in _links(STUDY)[upstream, downstream]:
        targets.setdefault(source, set()).add(target)
    return dg.StaticPartitionMapping(targets)


def _links(study: Study) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Which row feeds which, for every pair of partition sets that meet in the graph."""
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


DEFINITIONS: dict[str, dg.PartitionsDefinition[str]] = {
    name: dg.StaticPartitionsDefinition([row.name for row in getattr(STUDY, f"{name}s")])
    for name in get_args(PartitionSet)
}
