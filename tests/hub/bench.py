"""What publishing 80,000 pairs with whole texts costs: `make bench-hub` pushes them to a Hub on this machine.

The tables are made up in the shape of the paper's (80,000 pairs of 5 kB, 73,000 of them once more behind a filter) and
recorded with Dagster as if they had been made; then `nift publish` is run on them as a person runs it, three times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.hub.pushing import PROJECT, TOKEN
from tests.hub.server import Hub, person

ROWS = 80_000
STUDY = """
import dataclasses
from nift_assets import studies
from nift_assets.studies import Publication, TrainingSet
demo = studies.load("demo")
sets = (
    TrainingSet(name="echo-80k", teacher="echo", rows=80_000),
    TrainingSet(name="echo-10k", teacher="echo", rows=10_000),
    TrainingSet(name="echo-73k", teacher="echo", rows=80_000, filters=("uppercase_start",), refill=False),
)
STUDY = dataclasses.replace(
    demo, name="bench", training_sets=sets, adapters=(), models=demo.models[:2], filters=demo.filters[:2],
    teachers=tuple(dataclasses.replace(t, filters=()) for t in demo.teachers), audits=(), controls=(), examples=(),
    publications=(Publication(name="echo", repository="nift-bench", teacher="echo", licence="cc0-1.0"),),
)
"""


def main() -> None:
    """Prints a line per run: seconds, CPU seconds, peak memory, requests, bytes and commits."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=ROWS)
    rows = options.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="nift-bench-") as folder, Hub({TOKEN: person("me")}) as hub:
        environment = _environment(Path(folder), hub)
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.hub.bench_tables", str(rows)],
            env=environment, cwd=PROJECT, check=True,
        )  # fmt: skip
        print("| run | s | CPU s | peak RSS MB | requests | MB sent | commits |\n|---|---|---|---|---|---|---|")
        for run, arguments in (("shown", ()), ("pushed", ("--yes",)), ("pushed again", ("--yes",))):
            _measure(run, arguments, environment, hub)


def _environment(folder: Path, hub: Hub) -> dict[str, str]:
    (folder / "study.py").write_text(STUDY)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {
        "NIFT_STUDY": str(folder / "study.py"),
        "NIFT_WAREHOUSE": str(folder / "warehouse"),
        "DAGSTER_HOME": str(folder / "home"),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "huggingface"),
    }


def _measure(run: str, arguments: tuple[str, ...], environment: dict[str, str], hub: Hub) -> None:
    asked, commits = len(hub.log), _commits(hub)
    code = "import sys; from dagster_project.command_line import main; sys.argv[0] = 'nift'; main()"
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, "publish", *arguments], env=environment, cwd=PROJECT, stdout=-1
    )
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, said
    seconds, log = time.monotonic() - began, hub.log[asked:]
    cpu = used.ru_utime + used.ru_stime
    sent = sum(each.received for each in log) / 1e6
    made, peak = _commits(hub) - commits, used.ru_maxrss / 1024
    print(f"| {run} | {seconds:.1f} | {cpu:.1f} | {peak:,.0f} | {len(log)} | {sent:,.1f} | {made} |")


def _commits(hub: Hub) -> int:
    """The commits of ours, so without the one a repository begins with."""
    return sum(len(repo.commits) - 1 for repo in hub.repos.values())


if __name__ == "__main__":
    main()
