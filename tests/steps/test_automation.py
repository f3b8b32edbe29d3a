"""What may start by itself: tables that cost nothing, when what they are made from is new; and what a failure says."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dagster_project import failures
from dagster_project.definitions import defs
from dagster_project.resources import resources
from nift_assets import environment
from nift_assets.graph import asset_definition
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.takeover import known_to_dagster
from tests.corpus.loopback import Loopback
from tests.demo import GRAPH, STUDY, assets
from tests.steps.test_guard import halves_that, materialize, sampled, without_its_last_word, write

# How a function of the graph asks a model, starts a process of its own, reads the corpus or fetches a data set.
ASKS = ("asking.ask(", "asking.bring_in(")
EXPENSIVE = (*ASKS, "process.run(", "make_folder(", "corpus.sample(", "publications.read(")
FILTERS = {f"{row.name}_removals" for row in STUDY.filters}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path / "warehouse"), study=STUDY.name)


def expensive(table: str) -> bool:
    return any(re.search(rf"\b{re.escape(call)}", source(table)) for call in EXPENSIVE)


def asks_a_model(table: str) -> bool:
    return any(call in source(table) for call in ASKS)


def source(table: str) -> str:
    module = inspect.getmodule(GRAPH.tables[table].function)
    assert module is not None
    return inspect.getsource(module)


def test_nothing_that_asks_trains_evaluates_or_fetches_ever_starts_by_itself() -> None:
    conditions = {spec.key.to_user_string(): spec.automation_condition for spec in defs.resolve_all_asset_specs()}
    starts = {table for table, condition in conditions.items() if condition is not None}
    assert {table for table in GRAPH.tables if expensive(table) or GRAPH.tables[table].pool} >= {
        *("raw_sample", "backbones", "completions", "content_audit", "control_texts", "reference_sets"),
        *("lora_adapters", "merged_models", "mt_bench_answers", "mt_bench_judgments", "arena_hard_judgments"),
    }
    assert not {table for table in starts if expensive(table) or GRAPH.tables[table].needs != "nothing"}
    assert {table for table in GRAPH.tables if GRAPH.tables[table].asks} == {
        table for table in GRAPH.tables if asks_a_model(table)
    }
    assert starts >= FILTERS | {"filtered_completions", "training_sets", "benchmark_scores", "table_1", "report"}
    assert starts == {table for table, step in GRAPH.tables.items() if step.follows}
    assert not list(defs.schedules or ())


def test_the_sensors_that_launch_runs_are_off_until_somebody_switches_them_on() -> None:
    off = {sensor.name for sensor in defs.sensors or () if sensor.default_status == dg.DefaultSensorStatus.STOPPED}
    assert off == {"tables_follow", "batches"}
    assert failures.failures_sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert not failures.failures_sensor.targets, "it may launch nothing"


class Automation:
    """The conditions of the real graph, held against an instance again and again, as the daemon does."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._cursor: dg.AssetDaemonCursor | None = None  # type: ignore[name-defined]

    def made(self, table: str, partition: str | None = None) -> None:
        self._instance.report_runless_asset_event(dg.AssetMaterialization(table, partition=partition))

    def requested(self) -> dict[str, set[str | None]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            result = dg.evaluate_automation_conditions(defs, self._instance, cursor=self._cursor)
        self._cursor = result.cursor
        found = {table: result.get_requested_partitions(dg.AssetKey(table)) for table in GRAPH.tables}
        return {table: set(keys) for table, keys in found.items() if keys}


def test_what_is_made_from_a_teacher_follows_and_nothing_else_does(instance: dg.DagsterInstance) -> None:
    automation = Automation(instance)
    assert automation.requested() == {}
    automation.made("raw_sample")
    automation.made("halves")
    automation.requested()
    automation.made("completions", "echo")
    of_teacher = {*FILTERS, "completion_rejects", "filtered_completions"}
    found = automation.requested()
    assert {table: keys for table, keys in found.items() if GRAPH.tables[table].partitions} == {
        table: {"echo"} for table in of_teacher
    }
    assert "training_costs" in found, "it is of all that was paid for"
    for table in of_teacher:
        automation.made(table, "echo")
    # The funnel and the report are of all teachers, and are made of the one there is.
    found = automation.requested()
    assert found["training_sets"] == found["training_files"] == {"echo-filtered"}
    assert found["funnel"] == found["report"] == {None}
    assert {table for table in found if GRAPH.tables[table].partitions} == {"training_sets", "training_files"}


def test_a_partition_whose_checks_fail_is_followed_by_nothing(instance: dg.DagsterInstance, store: Store) -> None:
    """It is not written, so there is nothing new to follow."""
    automation = Automation(instance)
    write(store, "raw_sample", None, sampled(["One article goes on for several words, and then more."]))
    automation.made("raw_sample")
    automation.requested()
    assert not materialize(instance, store, "halves", functions=halves_that(without_its_last_word)).success
    assert automation.requested() == {}
    assert materialize(instance, store, "halves").success
    assert automation.requested() == {"funnel": {None}, "review_agreement": {None}, "report": {None}}


# What the UI calls stale.


def why_stale(instance: dg.DagsterInstance, **changed: Step) -> list[str]:
    """What Dagster says of the halves: nothing where they are fresh."""
    others = {table: asset_definition(GRAPH, step) for table, step in changed.items()}
    graph = dg.Definitions(assets=(assets() | others).values(), resources=resources(STUDY)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    causes = resolver.get_stale_causes(dg.AssetKey("halves"))
    assert (resolver.get_status(dg.AssetKey("halves")) == StaleStatus.FRESH) == (not causes)
    return [f"{cause.asset_key.to_user_string()} {cause.reason}" for cause in causes]


def test_a_table_is_stale_after_new_code_and_after_new_data_and_not_else(
    instance: dg.DagsterInstance, store: Store
) -> None:
    def sampled_as(version: str) -> None:
        known = known_to_dagster(STUDY, GRAPH.tables["raw_sample"], "raw_sample")
        tags = {"dagster/data_version": version, "dagster/code_version": known}
        instance.report_runless_asset_event(dg.AssetMaterialization("raw_sample", tags=tags))

    write(store, "raw_sample", None, sampled(["One article goes on for several words, and then more."]))
    sampled_as("a")
    assert materialize(instance, store, "halves").success
    assert why_stale(instance) == []
    sampled_as("a")
    assert why_stale(instance) == [], "the same data made again"
    edited = dataclasses.replace(GRAPH.tables["halves"], code_version="another")
    assert why_stale(instance, halves=edited) == ["halves has a new code version"]
    sampled_as("b")
    assert why_stale(instance) == ["halves has a new dependency data version"]


# What a failed run says.


def told(instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult) -> str:
    failed = [event for event in run.all_events if event.is_step_failure]
    return failures.in_words(instance, run.dagster_run, failed)


def test_a_failed_run_says_what_failed_for_whom_why_and_what_to_do(instance: dg.DagsterInstance, store: Store) -> None:
    write(store, "raw_sample", None, sampled(["One article goes on for several words, and then more."]))
    assert materialize(instance, store, "halves").success
    missing = materialize(instance, store, "filtered_completions", partition="echo")
    assert told(instance, missing) == (
        "filtered_completions of echo failed: completions/echo has not been made yet; materialize it first. "
        "Re-execute it from failure when that is mended; what was complete is kept"
    )
    bad = told(instance, materialize(instance, store, "halves", functions=halves_that(without_its_last_word)))
    assert bad.startswith("halves failed: nothing was written, the last good version stays: halves: halves_rejoin")
    assert bad.endswith("Its page has the failed checks; what is made from it waits for the next good version")
    assert "\n" not in bad


def test_a_run_whose_process_is_gone_says_that_it_is_run_again(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(),
        asset_selection=frozenset({dg.AssetKey("completions")}),
        tags={"dagster/partition": "echo"},
    )
    instance.report_run_failed(run)
    message = failures.in_words(instance, run, [])
    assert message.startswith(f"completions of echo failed: Dagster stopped the run {run.run_id}")
    assert "nothing is paid again" in message


def test_a_key_in_an_error_is_taken_out_of_the_message(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-0123456789abcdefghij")

    def torn(frame: pl.DataFrame) -> pl.DataFrame:
        raise RuntimeError("the server said: sk-proj-0123456789abcdefghij is no key")

    write(store, "raw_sample", None, sampled(["One article goes on for several words, and then more."]))
    message = told(instance, materialize(instance, store, "halves", functions=halves_that(torn)))
    assert "the server said" in message
    assert "0123456789abcdefghij" not in message


class Chat(Loopback):
    """A chat server's address for messages; what came in is in `taken`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, object]] = []
        super().__init__()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append((self.headers["Content-Type"], json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        return Handler


def test_the_sensor_tags_the_run_and_posts_the_message(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = materialize(instance, store, "filtered_completions", partition="echo")
    (event,) = [event for event in run.all_events if event.is_job_failure]
    with Chat() as chat:
        monkeypatch.setenv(environment.FAILURE_WEBHOOK, f"{chat.url}/hook")
        context = dg.build_run_status_sensor_context(
            "failures", dagster_event=event, dagster_instance=instance, dagster_run=run.dagster_run
        )
        failures.failures_sensor(context.for_run_failure())
    tagged = instance.get_run_by_id(run.run_id)
    assert tagged is not None
    message = tagged.tags[failures.TAG]
    assert message.startswith("filtered_completions of echo failed: ")
    assert chat.taken == [("application/json", {"text": message})]
