"""A back-fill of five teachers, two of whose models are not there, is cut off three times and finished by one click."""

from __future__ import annotations

import os
import signal
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nift_assets.store import Store
from tests.counting import Counts
from tests.ledger.asking import Arrivals, books, wait
from tests.ledger.fault_server import FaultServer
from tests.ledger.test_crashes import IN_FLIGHT, Place, alive, place
from tests.ui.browser import Strangers, chromium, click, until, window
from tests.ui.server import UI, ui

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium(), reason="there is no Chromium here; `make browser` installs it"),
]

DOCUMENTS, SECONDS = 60, 900
# Launched in the order of the alphabet, two at a time: the first that are cut off are good ones.
GOOD, GONE = ("one", "three", "two"), ("vanished", "vanished-too")
STUDY = """
import dataclasses
from nift_assets import studies
from nift_assets.studies import Limits, Teacher

DEMO = studies.load("demo")
TEACHERS = tuple(
    Teacher(name=name, provider="openai", model=name.split("-")[0], base_url={url!r}, key_variable="FAULT_SERVER_KEY",
            limits=Limits(in_flight=6, backoff_seconds=0.05))
    for name in {names!r}
)
STUDY = dataclasses.replace(
    DEMO, name="faults", teachers=TEACHERS,
    training_sets=(), adapters=(), models=DEMO.models[:2], audits=(), examples=(), publications=(),
)
"""
TABLES = ("completions", "completion_rejects")
LAUNCH = """
mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
BACKFILLS = """
{ partitionBackfillsOrError { ... on PartitionBackfills { results {
    id status runs(limit: 50) { status tags { key value } }
} } } }
"""


def backfills(running: UI) -> list[dict[str, Any]]:
    """All back-fills, the latest first, each run with its partition."""
    found: list[dict[str, Any]] = running.graphql(BACKFILLS)["partitionBackfillsOrError"]["results"]
    for backfill in found:
        for run in backfill["runs"]:
            run["teacher"] = next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition")
    return found


def ended(running: UI, count: int) -> Callable[[], bool]:
    def look() -> bool:
        found = backfills(running)
        return len(found) == count and found[0]["status"].startswith("COMPLETED_")

    return look


@contextmanager
def started(at: Place) -> Iterator[UI]:
    with ui(at.environment(), at.folder) as running:
        yield running


def daemon_of(running: UI) -> int:
    """The process of Dagster's daemon among those of the UI."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if os.getpgid(int(folder.name)) == running.pid and b"dagster._daemon" in words and b"run" in words:
                return int(folder.name)
        except OSError:  # ended while we looked
            continue
    raise AssertionError("the UI has no daemon")


def finish_by_clicking(running: UI) -> None:
    """The dialog's own choice of what failed and what is missing."""
    strangers, found = Strangers(), chromium()
    assert found
    selection = " or ".join(f'key:"{name}"' for name in TABLES)
    with window(found, strangers) as page:
        page.goto(running.entrance)
        page.goto(f"{running.url}/asset-groups~{urllib.parse.quote(selection, safe='')}/")
        button, confirm = (page.get_by_role("button", name=name) for name in ("Materialize all", "Confirm"))
        choice = page.get_by_role("dialog").get_by_text("Failed and missing", exact=True)
        launch = page.get_by_role("button", name="Launch backfill")
        until(page, confirm.is_visible, "the question", click(button))
        until(page, choice.is_visible, "the dialog of partitions", click(confirm))
        until(page, launch.is_enabled, "the choice", click(choice))
        until(page, page.get_by_text("Created backfill").is_visible, "the back-fill", click(launch))
    strangers.close()


@pytest.mark.fault("S10")
def test_an_interrupted_backfill_is_finished_with_exactly_what_is_missing(tmp_path: Path, counts: Counts) -> None:
    with FaultServer(latency=0.4, faults=[{"fault": "not_found", "model": GONE[0]}]) as server:
        at = place(tmp_path, server, DOCUMENTS)
        (tmp_path / "own.py").write_text(STUDY.format(url=f"{server.url}/v1", names=(*GOOD, *GONE)))
        arrivals = Arrivals(server)

        def reached(more: int) -> Callable[[], bool]:
            goal = arrivals.count() + more
            return lambda: arrivals.count() >= goal

        with started(at) as running:
            parameters = {
                "assetSelection": [{"path": [name]} for name in TABLES],
                "partitionNames": [*GOOD, *GONE],
            }
            launched = running.graphql(LAUNCH, {"parameters": parameters})["launchPartitionBackfill"]
            assert launched["__typename"] == "LaunchBackfillSuccess", launched
            wait(reached(12), SECONDS, every=0.02)
            os.kill(alive(at)[0], signal.SIGKILL)  # a run's worker
            wait(reached(20), SECONDS, every=0.02)
            os.killpg(running.pid, signal.SIGKILL)  # everything at once, as when the machine goes down
            time.sleep(1)
        with started(at) as running:
            more = reached(12)
            wait(lambda: more() or ended(running, 1)(), SECONDS, every=0.1)
            if not ended(running, 1)():
                os.kill(daemon_of(running), signal.SIGKILL)
                time.sleep(1)
        with started(at) as running:
            wait(ended(running, 1), SECONDS, every=1)
            (cut_off,) = backfills(running)
            store = Store(root=str(tmp_path / "warehouse"), study="faults")
            missing = {name for name in (*GOOD, *GONE) if store.version("completions", name) is None}
            assert missing >= set(GONE)
            server.set(latency=0.0, faults=[])
            finish_by_clicking(running)
            wait(ended(running, 2), SECONDS, every=1)
            finished, _ = backfills(running)
        assert {run["teacher"] for run in finished["runs"]} == missing
        assert {run["status"] for run in finished["runs"]} == {"SUCCESS"}
        found = books(at.ledger, server.bills())
        found.check(most_extra=IN_FLIGHT)
        for name in (*GOOD, *GONE):
            rows = store.read("completions", name)
            assert rows["status"].to_list() == ["ok"] * DOCUMENTS, name
    ends = Counter(run["status"] for run in cut_off["runs"])
    counts(
        "S10",
        f"a back-fill of 5 teachers; worker, everything and daemon killed: {dict(ends)}; one click runs the "
        f"{len(missing)} that are missing; 0 re-paid, {len(found.extra)} extra bills = "
        f"{len(found.unknown)} unknown",
    )
