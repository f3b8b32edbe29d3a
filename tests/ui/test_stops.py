"""What becomes of runs when a worker, `nift ui` or all of it is ended: nothing is paid twice, nothing stays behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import instance_at
from tests.counting import Counts
from tests.ledger.fault_server import FaultServer
from tests.ledger.test_crashes import Arrivals, Place, alive, launch, place, status
from tests.ui.server import UI, ui

DOCUMENTS = 300
WAIT_SECONDS = 600
RUNS = "{ runsOrError { ... on Runs { results { runId parentRunId status } } } }"


def wait(reached: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def run_again(running: UI, at: Place, server: FaultServer) -> None:
    """One more run, which asks only what is left, and nothing was paid twice."""
    server.set(latency=0.0)
    last = launch(running)
    wait(lambda: status(running, last) in ("FAILURE", "SUCCESS"), "the last run does not end")
    assert status(running, last) == "SUCCESS"
    at.check(server.bills())


def statuses(at: Place) -> list[str]:
    with instance_at(at.folder / "home") as instance:
        return [run.status.value for run in instance.get_runs()]


@pytest.mark.fault("T5")
@pytest.mark.slow
def test_a_killed_worker_is_run_again_by_the_daemon_and_pays_nothing_twice(tmp_path: Path, counts: Counts) -> None:
    with FaultServer(latency=0.5) as server, ExitStack() as stack:
        at = place(tmp_path, server, DOCUMENTS)
        arrivals = Arrivals(server)
        running = stack.enter_context(ui(at.environment(), tmp_path))
        first = launch(running, retries=2)
        wait(lambda: arrivals.count() >= 60, "nothing is asked")
        (worker,) = alive(at)
        os.kill(worker, signal.SIGKILL)
        began = time.monotonic()
        most = 0

        def retried() -> bool:
            nonlocal most
            most = max(most, len(alive(at)))
            runs = running.graphql(RUNS)["runsOrError"]["results"]
            return any(run["parentRunId"] == first and run["status"] == "SUCCESS" for run in runs)

        wait(retried, f"no retry has ended well: {running.graphql(RUNS)}")
        seconds = time.monotonic() - began
        assert status(running, first) == "FAILURE"
        assert most == 1
        found = at.check(server.bills())
    counts(
        "T5",
        f"a worker killed in {DOCUMENTS} requests, run again by the daemon: 1 writer, 0 re-paid, {len(found.extra)} "
        f"extra bills = {len(found.unknown)} unknown, done after {seconds:.0f} s",
    )


@pytest.mark.slow
@pytest.mark.parametrize("of", ["the command", "the whole terminal"])
def test_ctrl_c_ends_the_run_with_the_ui_and_the_next_goes_on_from_there(of: str, tmp_path: Path) -> None:
    with FaultServer(latency=0.5) as server:
        at = place(tmp_path, server, DOCUMENTS)
        arrivals = Arrivals(server)
        with ui(at.environment(), tmp_path) as running:
            launch(running)
            wait(lambda: arrivals.count() >= 60, "nothing is asked")
            if of == "the whole terminal":
                os.killpg(running.pid, signal.SIGINT)
        assert not alive(at)
        assert statuses(at) in (["CANCELED"], ["FAILURE"])
        with ui(at.environment(), tmp_path) as running:
            run_again(running, at, server)


@pytest.mark.slow
def test_a_launcher_that_was_killed_is_started_again_and_its_runs_are_not_lost(tmp_path: Path) -> None:
    """Everything but the code server goes with it; that one ends by itself, with the run it has."""
    with FaultServer(latency=0.5) as server, ExitStack() as stack:
        at = place(tmp_path, server, DOCUMENTS)
        arrivals = Arrivals(server)
        first = stack.enter_context(ui(at.environment(), tmp_path, stop_seconds=WAIT_SECONDS))
        launch(first)
        wait(lambda: arrivals.count() >= 60, "nothing is asked")
        os.kill(first.pid, signal.SIGKILL)
        with ui(at.environment(), tmp_path) as running:
            wait(lambda: not alive(at), "the run of the first goes on")
            wait(lambda: statuses(at) in (["CANCELED"], ["FAILURE"], ["SUCCESS"]), f"{statuses(at)}")
            run_again(running, at, server)


@pytest.mark.slow
def test_a_run_whose_process_went_down_with_the_machine_is_marked_and_frees_its_places(tmp_path: Path) -> None:
    with FaultServer(latency=0.5) as server:
        at = place(tmp_path, server, DOCUMENTS)
        with instance_at(at.folder / "home") as instance:
            lost = instance.create_run_for_job(lone_job, status=dg.DagsterRunStatus.STARTED)
            instance.add_run_tags(lost.run_id, {".dagster/grpc_info": '{"host": "localhost", "socket": "/nowhere"}'})
            instance.event_log_storage.set_concurrency_slots("gpu", 1)
            instance.event_log_storage.claim_concurrency_slot("gpu", lost.run_id, "evaluations")
        with ui(at.environment(), tmp_path):
            pass
        with instance_at(at.folder / "home") as instance:
            run = instance.get_run_by_id(lost.run_id)
            assert run is not None
            assert run.status == dg.DagsterRunStatus.FAILURE
            assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0


@dg.op
def lone() -> None: ...


@dg.job
def lone_job() -> None:
    lone()
