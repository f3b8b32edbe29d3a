"""A back-fill of two teachers makes what depends on those two and nothing else: by Dagster's graph, and in its UI."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import defs
from dagster_project.resources import resources
from nift_assets.assets.graph import asset_definitions
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import STEPS
from tests.conftest import instance_at
from tests.ui.server import UI, ui

TEACHERS = ("original", "echo")
DATA = ("raw_sample", "raw_sample_rejects", "halves", "halves_rejects")
OF_TEACHERS = (
    "completions",
    "completion_rejects",
    *(f"{row.name}_removals" for row in STUDY.filters),
    "filtered_completions",
)
SELECTION = (*OF_TEACHERS, "training_sets")
# Both sets are named by hand: what is tested is that Dagster follows the study's rows from one to the other.
EXPECTED = {**{name: {"original", "echo"} for name in OF_TEACHERS}, "training_sets": {"original", "echo-filtered"}}
BACKFILL_SECONDS = 240

Made = Mapping[str, set[str]]


def made(instance: dg.DagsterInstance) -> Made:
    """The materialized partitions of every table that was made at all; of an unpartitioned one, an empty set."""
    return {
        name: set(instance.get_materialized_partitions(dg.AssetKey(name)))
        for name in STEPS
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


def test_two_teachers_are_made_without_the_third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs that a back-fill launches, one after the other in this process."""
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path))
    here = dg.Definitions(asset_definitions(), resources=resources(), executor=dg.in_process_executor)
    job = here.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:

        def run(tables: tuple[str, ...], key: str | None = None) -> None:
            selection = [dg.AssetKey(name) for name in tables]
            job.execute_in_process(partition_key=key, asset_selection=selection, instance=instance)

        run(DATA)
        for teacher in TEACHERS:
            run(OF_TEACHERS, teacher)
        for training_set in ("original", "echo-filtered"):
            run(("training_sets",), training_set)
        assert made(instance) == {**{name: set() for name in DATA}, **EXPECTED}
    assert {path.relative_to(tmp_path / "demo").as_posix() for path in tmp_path.rglob("*.parquet")} == {
        *(f"{name}.parquet" for name in DATA),
        *(f"{name}/{key}.parquet" for name, keys in EXPECTED.items() for key in keys),
    }


# From here on the real thing: `nift ui` with its webserver, its daemon and its runs in processes of their own.

NODES = """
{ assetNodes {
    assetKey { path } groupName description opVersion kinds isMaterializable
    owners { ... on TeamAssetOwner { team } }
    partitionKeys dependencyKeys { path }
    assetChecksOrError { ... on AssetChecks { checks {
        name executionForLatestMaterialization { status }
        partitionStatuses { ... on AssetCheckDefaultPartitionStatuses { succeededPartitions failedPartitions } }
    } } }
} }
"""
LAUNCH_RUN = """
mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
} }
"""
RUN = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
PREVIEW = """
query ($parameters: AssetBackfillPreviewParams!) { assetBackfillPreview(params: $parameters) {
    assetKey { path } partitions { partitionKeys }
} }
"""
LAUNCH_BACKFILL = """
mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
BACKFILL = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
    status error { message } runs(limit: 50) { status tags { key value } }
} } }
"""
CHECK = """
query ($asset: AssetKeyInput!, $check: String!) {
    assetCheckExecutions(assetKey: $asset, checkName: $check, limit: 50) { status evaluation { partition severity } }
}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where nobody has used nift before; the UI makes its instance in it."""
    return tmp_path_factory.mktemp("fresh")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[UI]:
    """The UI on an empty warehouse, started in a fresh folder without DAGSTER_HOME."""
    environment = {name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "NIFT_STUDY"}}
    environment |= {"HOME": str(home), "NIFT_WAREHOUSE": str(home / "warehouse")}
    with ui(environment, home) as running:
        print(f"the UI was ready in {running.seconds:.1f} s")
        yield running


@pytest.fixture(scope="module")
def backfill(server: UI) -> dict[str, Any]:
    """The finished back-fill of two teachers, launched as the UI launches it: assets, and keys of the first of them."""
    launched = server.graphql(LAUNCH_RUN, {"parameters": _data_run()})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = _wait(lambda: server.graphql(RUN, {"id": launched["run"]["runId"]})["runOrError"], {"SUCCESS", "FAILURE"})
    assert run["status"] == "SUCCESS"
    began = time.monotonic()
    launched = server.graphql(LAUNCH_BACKFILL, {"parameters": _selected()})["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    ended = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
    identifier = {"id": launched["backfillId"]}
    done = _wait(lambda: server.graphql(BACKFILL, identifier)["partitionBackfillOrError"], ended)
    print(f"the back-fill took {time.monotonic() - began:.0f} s")
    return done


@pytest.mark.slow
def test_a_fresh_folder_gets_an_instance_without_telemetry(server: UI, home: Path) -> None:
    assert "telemetry:\n  enabled: false" in (home / ".dagster" / "demo" / "dagster.yaml").read_text()
    assert '"telemetryEnabled": false' in server.page()
    # What Dagster writes before it has read its configuration would be here.
    assert not list(home.rglob("telemetry.log"))
    assert sorted(path.name for path in home.iterdir() if path.suffix != ".log") == [".dagster"]


@pytest.mark.slow
def test_the_code_location_loads_without_an_error(server: UI) -> None:
    assert server.locations() == [
        {"name": "nift", "loadStatus": "LOADED", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
    ]


@pytest.mark.slow
def test_the_ui_shows_what_every_asset_is(server: UI) -> None:
    nodes = {node["assetKey"]["path"][-1]: node for node in server.graphql(NODES)["assetNodes"]}
    made_here = {name for name, node in nodes.items() if node["isMaterializable"]}
    assert made_here == set(STEPS)
    for name, node in nodes.items():
        assert node["description"], name
        assert node["groupName"] != "default", name
        assert node["kinds"], name
        assert node["owners"] == [{"team": "nift"}], name
    for name in made_here:
        step = STEPS[name]
        assert nodes[name]["opVersion"] == step.code_version
        assert bool(nodes[name]["partitionKeys"]) == bool(step.partitions), name
        assert {key["path"][-1] for key in nodes[name]["dependencyKeys"]} >= set(step.inputs)
        assert nodes[name]["assetChecksOrError"]["checks"], name
    assert nodes["completions"]["partitionKeys"] == ["original", "local", "echo"]


@pytest.mark.slow
def test_the_ui_says_beforehand_what_a_backfill_of_two_teachers_makes(server: UI) -> None:
    preview = server.graphql(PREVIEW, {"parameters": _selected()})["assetBackfillPreview"]
    assert {
        target["assetKey"]["path"][-1]: set(target["partitions"]["partitionKeys"]) for target in preview
    } == EXPECTED


@pytest.mark.slow
def test_a_backfill_of_two_teachers_makes_exactly_their_partitions(backfill: dict[str, Any], home: Path) -> None:
    assert backfill["status"] == "COMPLETED_SUCCESS", backfill
    assert {run["status"] for run in backfill["runs"]} == {"SUCCESS"}
    partitions = [tag["value"] for run in backfill["runs"] for tag in run["tags"] if tag["key"] == "dagster/partition"]
    assert sorted(partitions) == sorted([*TEACHERS, "original", "echo-filtered"])
    with instance_at(home / ".dagster" / "demo") as instance:
        assert made(instance) == {**{name: set() for name in DATA}, **EXPECTED}


@pytest.mark.slow
@pytest.mark.usefixtures("backfill")
def test_every_check_of_a_backfill_knows_its_partition(server: UI) -> None:
    nodes = {node["assetKey"]["path"][-1]: node for node in server.graphql(NODES)["assetNodes"]}
    for name in SELECTION:
        for check in nodes[name]["assetChecksOrError"]["checks"]:
            variables = {"asset": {"path": [name]}, "check": check["name"]}
            executions = server.graphql(CHECK, variables)["assetCheckExecutions"]
            found = {execution["evaluation"]["partition"] for execution in executions}
            assert found == EXPECTED[name], (name, check["name"])
            assert len(executions) == len(found), (name, check["name"])
            # Without this the page of the asset says "Not evaluated" although the check was.
            assert check["executionForLatestMaterialization"], (name, check["name"])
            # And without this each partition's page does: the check counts for the version that was stored with it.
            shown = [key for keys in check["partitionStatuses"].values() for key in keys]
            assert set(shown) == EXPECTED[name], (name, check["name"])


@pytest.mark.slow
@pytest.mark.usefixtures("backfill")
def test_a_check_that_warns_is_shown_as_one_and_stops_nothing(server: UI) -> None:
    variables = {"asset": {"path": ["completions"]}, "check": "few_are_truncated"}
    executions = server.graphql(CHECK, variables)["assetCheckExecutions"]
    assert {e["evaluation"]["partition"]: (e["status"], e["evaluation"]["severity"]) for e in executions} == {
        "original": ("SUCCEEDED", "WARN"),
        "echo": ("FAILED", "WARN"),
    }


def _selected() -> dict[str, object]:
    return {"assetSelection": [{"path": [name]} for name in SELECTION], "partitionNames": list(TEACHERS)}


def _data_run() -> dict[str, object]:
    selector = {
        "repositoryLocationName": "nift",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": [name]} for name in DATA],
    }
    return {"selector": selector, "mode": "default", "runConfigData": {}}


def _wait(ask: Any, ended: set[str]) -> dict[str, Any]:
    end = time.monotonic() + BACKFILL_SECONDS
    while time.monotonic() < end:
        answer: dict[str, Any] = ask()
        if answer.get("status") in ended:
            return answer
        time.sleep(2)
    raise AssertionError(f"not finished after {BACKFILL_SECONDS} s: {answer}")
