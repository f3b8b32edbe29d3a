"""A back-fill of two teachers makes what depends on those two and nothing else, by Dagster's graph and in runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration

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

LOCATION = ModuleTarget("dagster_project.definitions", None, None, None)
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
def test_a_back_fill_of_a_cell_that_the_study_does_not_want_succeeds_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the daemon goes through what *Missing* launches."""
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    table = "arena_hard_judgments"
    model = next(model.name for model in STUDY.models if not GRAPH.partitions.is_wanted(table, model.name))
    at_once = {
        "run_launcher": {
            "module": "dagster._core.launcher.sync_in_memory_run_launcher",
            "class": "SyncInMemoryRunLauncher",
        },
        "run_coordinator": {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"},
    }
    with (
        dg.instance_for_test(overrides=at_once) as instance,
        create_test_daemon_workspace_context(
            ModuleTarget("dagster_project.definitions", None, None, None), instance
        ) as daemon,
    ):
        back_fill = PartitionBackfill.from_asset_partitions(
            "missing",
            daemon.create_request_context().asset_graph,
            partition_names=[model],
            asset_selection=[dg.AssetKey(table)],
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(back_fill)
        for _ in range(10):
            list(execute_backfill_iteration(daemon, logging.getLogger("back-fill")))
            status = instance.get_backfill("missing").status
            if status in BULK_ACTION_TERMINAL_STATUSES:
                break
        assert status == BulkActionStatus.COMPLETED_SUCCESS
        (run,) = instance.get_runs()
        assert run.is_success
        event = instance.get_latest_materialization_event(dg.AssetKey(table))
        assert "the study does not want" in str(event.asset_materialization.metadata["left out"].value)
    assert not list(tmp_path.rglob("*.parquet"))


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
