"""A back-fill one of whose teachers cannot answer: the others finish, it alone is retried, and what follows follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from dagster_project.failures import TAG
from dagster_project.jobs import INTENTS, tables
from nift_assets.store import Store
from tests.conftest import instance_at
from tests.ledger.fault_server import FaultServer
from tests.ledger.test_crashes import Place, place, status
from tests.ui.server import UI, ui

DOCUMENTS = 40
WAIT_SECONDS = 900
GOOD = ("original", "echo")
BACKFILL = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
    status runs(limit: 50) { runId status stepKeysToExecute assetSelection { path } tags { key value } }
} } }
"""
LAUNCH_BACKFILL = """
mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
RETRY = """
mutation ($parameters: ReexecutionParams!) { reexecutePartitionBackfill(reexecutionParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
LAUNCH_RUN = """
mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
} }
"""
SWITCH_ON = """
mutation { startSensor(sensorSelector: {
    repositoryName: "__repository__", repositoryLocationName: "nift", sensorName: "tables_follow"
}) { __typename ... on PythonError { message } } }
"""


@dataclass
class Scene:
    """The UI on three teachers, the third of which is a server that bills and that refuses the key at first."""

    at: Place
    server: FaultServer
    running: UI
    first: dict[str, Any]

    def store(self) -> Store:
        return Store(root=str(self.at.folder / "warehouse"), study="faults")

    def written(self, teacher: str) -> dict[str, int]:
        """When each table of a teacher was written, of those that were."""
        paths = {name: self.store().path(name, teacher) for name in of_teacher()}
        return {name: path.stat().st_mtime_ns for name, path in paths.items() if path.exists()}

    def run(self, table: str, teacher: str | None = None) -> str:
        """Launches one table as the UI does, and waits for its end."""
        selector = {
            "repositoryLocationName": "nift",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [table]}],
        }
        tags = [{"key": "dagster/partition", "value": teacher}] if teacher else []
        parameters = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        launched = self.running.graphql(LAUNCH_RUN, {"parameters": parameters})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = str(launched["run"]["runId"])
        wait(lambda: status(self.running, run) in ("SUCCESS", "FAILURE"), table)
        return status(self.running, run)


def of_teacher() -> list[str]:
    (found,) = [tables(intent) for intent in INTENTS if intent.name == "teacher_data_set"]
    return found


def wait(reached: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def ended(running: UI, answer: dict[str, Any]) -> dict[str, Any]:
    """A back-fill when it has ended."""
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    found: dict[str, Any] = {}

    def look() -> bool:
        found.update(running.graphql(BACKFILL, {"id": answer["backfillId"]})["partitionBackfillOrError"])
        return found["status"] in ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")

    wait(look, "the back-fill does not end")
    return found | {"id": answer["backfillId"]}


def partition(run: dict[str, Any]) -> str:
    return next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    with FaultServer([{"fault": "auth"}]) as server:
        at = place(folder, server, DOCUMENTS)
        with instance_at(folder / "home") as instance:  # the place has its halves without Dagster's knowing
            instance.report_runless_asset_event(dg.AssetMaterialization("halves"))
        with ui(at.environment(), folder) as running:
            parameters = {
                "assetSelection": [{"path": [name]} for name in of_teacher()],
                "partitionNames": [*GOOD, "remote"],
            }
            launched = running.graphql(LAUNCH_BACKFILL, {"parameters": parameters})["launchPartitionBackfill"]
            yield Scene(at, server, running, ended(running, launched))


@pytest.mark.fault("S10")
@pytest.mark.slow
def test_a_bad_teacher_stops_its_own_branch_only(scene: Scene) -> None:
    assert scene.first["status"] == "COMPLETED_FAILED"
    assert {partition(run): run["status"] for run in scene.first["runs"]} == {
        "original": "SUCCESS",
        "echo": "SUCCESS",
        "remote": "FAILURE",
    }
    assert scene.written("remote") == {}
    for teacher in GOOD:
        assert scene.written(teacher).keys() == set(of_teacher())


@pytest.mark.slow
def test_the_failed_run_says_in_one_line_what_a_person_can_do(scene: Scene) -> None:
    (failed,) = [run["runId"] for run in scene.first["runs"] if run["status"] == "FAILURE"]

    def message() -> str | None:
        with instance_at(scene.at.folder / "home") as instance:
            run = instance.get_run_by_id(failed)
            assert run is not None
            return run.tags.get(TAG)

    wait(message, "the sensor of the failures has not looked")
    said = message()
    assert said is not None
    assert said.startswith("completions of remote failed: ")
    assert "answers 401" in said
    assert "put a valid key" in said
    assert said.endswith("Launch it again when that is settled: only the rest is asked")


@pytest.mark.fault("S10")
@pytest.mark.slow
def test_a_retry_from_failure_makes_the_bad_teacher_alone(scene: Scene) -> None:
    before = {teacher: scene.written(teacher) for teacher in GOOD}
    scene.server.set(faults=[])
    parameters = {"parentRunId": scene.first["id"], "strategy": "FROM_FAILURE"}
    retried = ended(
        scene.running, scene.running.graphql(RETRY, {"parameters": parameters})["reexecutePartitionBackfill"]
    )
    assert retried["status"] == "COMPLETED_SUCCESS", retried
    assert {partition(run) for run in retried["runs"]} == {"remote"}
    assert scene.written("remote").keys() == set(of_teacher())
    assert {teacher: scene.written(teacher) for teacher in GOOD} == before


@pytest.mark.slow
def test_where_it_is_switched_on_what_costs_nothing_follows_and_nobody_is_asked(scene: Scene) -> None:
    bills, before = len(scene.server.bills()), scene.written("echo")
    assert scene.running.graphql(SWITCH_ON)["startSensor"]["__typename"] == "Sensor"
    time.sleep(60)  # its first look is at what was there before
    assert scene.run("completions", "echo") == "SUCCESS"
    completions = scene.written("echo")["completions"]
    followers = set(of_teacher()) - {"completions"}
    wait(
        lambda: all(at > completions for name, at in scene.written("echo").items() if name in followers),
        f"{before}: {scene.written('echo')}",
    )
    wait(lambda: scene.store().version("training_sets", "echo-filtered"), "the training set does not follow")
    assert len(scene.server.bills()) == bills
    with instance_at(scene.at.folder / "home") as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/from_automation_condition": "true"}))
        started = {key.to_user_string() for run in runs for key in run.asset_selection or ()}
    assert started >= followers
    assert not started & {"completions", "content_audit", "lora_adapters", "mt_bench_judgments"}
