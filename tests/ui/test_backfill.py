"""A back-fill of two teachers makes what depends on those two and nothing else, by Dagster's graph and in runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.definitions import defs
from dagster_project.resources import resources
from nift_assets.graph import asset_definitions
from tests.demo import GRAPH, STUDY

TEACHERS = ("original", "echo")
DATA = ("raw_sample", "raw_sample_rejects", "halves", "halves_rejects")
OF_TEACHERS = (
    "completions",
    "completion_rejects",
    *(f"{row.name}_removals" for row in STUDY.filters),
    "filtered_completions",
)
SELECTION = (*OF_TEACHERS, "content_audit", "training_sets")
# These sets are named by hand: what is tested is that Dagster follows the study's rows from one to the other.
AUDITS = ("original", "planted")
TRAINING_SETS = ("original", "echo-filtered", "original-audited")
EXPECTED = {
    **{name: set(TEACHERS) for name in OF_TEACHERS},
    "content_audit": set(AUDITS),
    "training_sets": set(TRAINING_SETS),
}

Made = Mapping[str, set[str]]


def made(instance: dg.DagsterInstance) -> Made:
    """The materialized partitions of every table that was made at all; of an unpartitioned one, an empty set."""
    return {
        name: set(instance.get_materialized_partitions(dg.AssetKey(name)))
        for name in GRAPH.tables
        if instance.get_latest_materialization_event(dg.AssetKey(name))
    }


def test_two_teachers_select_the_training_sets_that_are_made_from_them() -> None:
    graph = defs.resolve_asset_graph()
    waiting = [("completions", teacher) for teacher in TEACHERS]
    selected: dict[str, set[str]] = {}
    while waiting:
        name, key = waiting.pop()
        selected.setdefault(name, set()).add(key)
        waiting += [
            (child.asset_key.to_user_string(), child.partition_key)
            for child in graph.get_children_partitions(dg.AssetKey(name), key)
            if child.partition_key and child.asset_key.to_user_string() in SELECTION
        ]
    assert selected == EXPECTED


@pytest.mark.slow
def test_two_teachers_are_made_without_the_third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs that a back-fill launches, one after the other in this process."""
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path))
    here = dg.Definitions(asset_definitions(GRAPH), resources=resources(STUDY), executor=dg.in_process_executor)
    job = here.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:

        def run(tables: tuple[str, ...], key: str | None = None) -> None:
            selection = [dg.AssetKey(name) for name in tables]
            job.execute_in_process(partition_key=key, asset_selection=selection, instance=instance)

        run(DATA)
        for teacher in TEACHERS:
            run(OF_TEACHERS[:2], teacher)
        for audit in AUDITS:
            run(("content_audit",), audit)
        for teacher in TEACHERS:
            run(OF_TEACHERS[2:], teacher)
        for training_set in TRAINING_SETS:
            run(("training_sets",), training_set)
        assert made(instance) == {**{name: set() for name in DATA}, **EXPECTED}
    assert {path.relative_to(tmp_path / "demo").as_posix() for path in tmp_path.rglob("*.parquet")} == {
        *(f"{name}.parquet" for name in DATA),
        *(f"{name}/{key}.parquet" for name, keys in EXPECTED.items() for key in keys),
    }
