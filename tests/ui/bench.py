"""What Dagster itself costs here: `make bench-dagster`.

Loading the definitions; what a step costs beside its own work; a back-fill of eight teachers over the demo's articles
by the real daemon, and the same by `nift run`. The teachers are fakes that answer at once, so that what is left is
Dagster, the checks and the writing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import PROJECT, nift
from tests.ui.server import UI, ui

TEACHERS = 8
STUDY = f"""
import dataclasses
from nift_assets import studies
from nift_assets.studies import Teacher

DEMO = studies.load("demo")
# Each with a limit of its own, or all would have the answers of the first.
EIGHT = tuple(
    Teacher(name=f"echo-{{n}}", provider="echo", model="continue", max_tokens=100 + n, filters=("prompt_echo",))
    for n in range({TEACHERS})
)
STUDY = dataclasses.replace(DEMO, name="bench", teachers=(*DEMO.teachers, *EIGHT))
"""
NAMES = [f"echo-{n}" for n in range(TEACHERS)]
LOAD = """
import resource
import dagster_project.definitions
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""
STEPS = """
import json, os, time
import dagster as dg
from dagster_project.definitions import ACTIVE, defs
from dagster_project.jobs import INTENTS, tables

job = defs.resolve_implicit_global_asset_job_def()
names = {intent.name: tables(ACTIVE, intent) for intent in INTENTS}
with dg.DagsterInstance.get() as instance:

    def run(intent, key=None):
        began, cpu = time.monotonic(), time.process_time()
        keys = [dg.AssetKey(name) for name in names[intent]]
        result = job.execute_in_process(partition_key=key, asset_selection=keys, instance=instance)
        made = result.get_asset_materialization_events()
        own = sum(event.materialization.metadata["seconds"].value for event in made)
        checks = len(result.get_asset_check_evaluations())
        return len(made), checks, own, time.monotonic() - began, time.process_time() - cpu

    run("articles")
    run("teacher_data_set", "echo-0")  # what is imported once
    print(json.dumps([run("teacher_data_set", f"echo-{n}") for n in range(1, 6)]))
"""
LAUNCH = """
mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
BACKFILL = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
    status runs(limit: 100) { status startTime endTime }
} } }
"""
MOST_SECONDS = 1800


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nift-bench-") as folder:
        (Path(folder) / "own.py").write_text(STUDY)
        load(environment(Path(folder), "load"))
        steps(environment(Path(folder), "steps"))
        backfill(environment(Path(folder), "backfill"), Path(folder))
        line(environment(Path(folder), "line"))


def environment(folder: Path, name: str) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("NIFT_", "DAGSTER_"))}
    home = folder / name / "home"
    home.mkdir(parents=True)
    configuration = PROJECT / "dagster_project" / "instance" / "dagster.yaml"
    (home / "dagster.yaml").write_bytes(configuration.read_bytes())
    return ours | {
        "NIFT_STUDY": str(folder / "own.py"),
        "NIFT_WAREHOUSE": str(folder / name / "warehouse"),
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(PROJECT),
    }


def python(code: str, env: dict[str, str]) -> str:
    """The last line that some code prints; what Dagster logs of every event goes nowhere."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


def load(env: dict[str, str]) -> None:
    seconds = min(float(python(LOAD, env)) for _ in range(5))
    print(f"loading the definitions: {seconds:.2f} s of user CPU (best of 5)")


def steps(env: dict[str, str]) -> None:
    """The best of five runs of one teacher's tables in a process that has imported everything."""
    measured = json.loads(python(STEPS, env))
    made, checks, own, wall, cpu = min(measured, key=lambda run: run[3] - run[2])
    rest = wall - own
    print(
        f"a run of {made} tables, {checks} checks, in one process: {wall:.2f} s ({cpu:.2f} CPU s), {own:.2f} s of it "
        f"the tables' own work; the rest is {1000 * rest / made:.0f} ms a table, {1000 * rest / checks:.0f} ms a check"
    )


def backfill(env: dict[str, str], folder: Path) -> None:
    """All tables of eight teachers, launched in the UI, run by the daemon in processes of their own."""
    assert nift("run", "halves", environment=env).returncode == 0
    with ui(env, folder) as running:
        before, began = cpu_seconds(running.pid), time.monotonic()
        done = wait(running, launch(running))
        wall, cpu = time.monotonic() - began, cpu_seconds(running.pid) - before
    assert done["status"] == "COMPLETED_SUCCESS", done
    longest = sorted(run["endTime"] - run["startTime"] for run in done["runs"])
    print(
        f"a back-fill of {TEACHERS} teachers by the daemon: {wall:.0f} s, {cpu:.0f} CPU s, {len(longest)} runs of "
        f"{longest[0]:.1f} to {longest[-1]:.1f} s, two at a time"
    )


def launch(running: UI) -> str:
    from dagster_project.jobs import INTENTS, tables
    from tests.demo import GRAPH

    (of_teacher,) = [tables(GRAPH, intent) for intent in INTENTS if intent.name == "teacher_data_set"]
    parameters = {"assetSelection": [{"path": [name]} for name in of_teacher], "partitionNames": NAMES}
    launched = running.graphql(LAUNCH, {"parameters": parameters})["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def wait(running: UI, identifier: str) -> dict[str, Any]:
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        found: dict[str, Any] = running.graphql(BACKFILL, {"id": identifier})["partitionBackfillOrError"]
        if found["status"] not in ("REQUESTED", "COMPLETED"):
            return found
        time.sleep(0.5)
    raise TimeoutError(f"not finished after {MOST_SECONDS} s")


def line(env: dict[str, str]) -> None:
    """The same tables by the command line: two processes that stay, no daemon."""
    assert nift("run", "halves", environment=env).returncode == 0
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    chosen = [text for name in NAMES for text in ("--partition", name)]
    ran = nift("run", "filtered_completions", "completion_rejects", *chosen, environment=env)
    assert ran.returncode == 0, ran.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"the same by nift run: {time.monotonic() - began:.0f} s, {cpu:.0f} CPU s")


def cpu_seconds(group: int) -> float:
    """What the processes of a group have used, with those that they have waited for."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
