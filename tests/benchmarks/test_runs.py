"""MT-Bench and Arena-Hard from questions to verdicts, killed again and again: nothing is answered or judged twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import polars as pl
import pytest

from nift_assets.benchmarks import arena_hard, mt_bench
from nift_assets.store import Store
from tests.conftest import PROJECT, Demo
from tests.shared_data import shared

MODEL = "pico"
TABLES = ("mt_bench_answers", "arena_hard_answers", "mt_bench_judgments", "arena_hard_judgments")
NIFT = (sys.executable, "-c", "from dagster_project.command_line import main; main()")
KEPT = "This answer was kept."
SHORT = """
from dataclasses import replace
from nift_assets import studies

DEMO = studies.load("demo")
STUDY = replace(DEMO, benchmarks=tuple(replace(benchmark, max_new_tokens=4) for benchmark in DEMO.benchmarks))
"""  # so many questions take long enough


def start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`nift run` of the four tables of one model."""
    with log(environment).open("wb") as output:
        return subprocess.Popen(
            [*NIFT, "run", *TABLES, "--partition", MODEL, "--only"],
            env=dict(environment),
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def log(environment: Mapping[str, str]) -> Path:
    return Path(environment["DAGSTER_HOME"], "printed.txt")


def kill_when_half_is_answered(environment: Mapping[str, str], file: str, rows: int) -> int:
    """Kills a process and all it has started when half the answers of a benchmark are on the disk, and writes into each
    of them that it was kept; how many they are."""
    process = start(environment)
    half: Path | None = None
    while half is None or half.read_bytes().count(b"\n") <= rows // 2:
        assert process.poll() is None, log(environment).read_text()[-3000:]
        time.sleep(0.02)
        half = next(Path(environment["NIFT_WAREHOUSE"]).glob(f"demo/.unfinished/*/{file}.unfinished"), None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # the last of its children to go
    header, *lines = half.read_text().split("\n")[:-1]
    kept = [json.dumps({**row, "turns": [KEPT] * len(row["turns"])}) for row in map(json.loads, lines)]
    half.write_text("\n".join([header, *kept]) + "\n")
    return len(kept)


def kill_when_something_is_judged(environment: Mapping[str, str]) -> dict[str, str]:
    """Kills a process and all it has started when the first verdicts are in the ledger; when each was given."""
    process, warehouse = start(environment), Path(environment["NIFT_WAREHOUSE"])
    while not verdicts(warehouse):
        assert process.poll() is None, log(environment).read_text()[-3000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # the last of its children to go
    return verdicts(warehouse)


def run_killed(demo: Demo, folder: Path, environment: Mapping[str, str], questions: Mapping[str, int]) -> None:
    warehouse, home = folder / "warehouse", folder / "home"
    for table in ("backbones", "merged_models"):
        shutil.copytree(demo.warehouse / "demo" / table, warehouse / "demo" / table)
    places = {**environment, "NIFT_WAREHOUSE": str(warehouse), "DAGSTER_HOME": str(home)}
    home.mkdir()

    rated = kill_when_half_is_answered(places, "mt_bench.jsonl", 2 * questions["mt_bench"])
    ruled = kill_when_half_is_answered(places, "arena_hard.jsonl", questions["arena_hard"])
    half = kill_when_something_is_judged(places)
    assert 0 < len(half) < 4 * questions["mt_bench"] + 2 * questions["arena_hard"]
    assert start(places).wait() == 0, log(places).read_text()[-3000:]

    store = Store(root=str(warehouse), study="demo")
    made = {table: store.read(table, MODEL) for table in TABLES}
    turns, games = 4 * questions["mt_bench"], 2 * questions["arena_hard"]  # of two runs, of one
    assert [frame.height for frame in made.values()] == [turns, games // 2, turns, games]
    kept = [(made[table]["answer"] == KEPT).sum() for table in TABLES[:2]]
    assert kept == [2 * rated, ruled]  # an answer that was asked for again would be the model's own
    keys = pl.concat([made[table]["request_key"] for table in TABLES[2:]])
    final = verdicts(warehouse)
    assert set(keys) <= final.keys()  # and what was asked once more for want of a verdict
    assert half.items() <= final.items(), "what was there is older than the kill, so nobody was asked for it again"
    assert mt_bench.score(MODEL, made["mt_bench_judgments"])[0].expected == turns
    assert arena_hard.score(MODEL, made["arena_hard_judgments"])[0].expected == games


def verdicts(warehouse: Path) -> dict[str, str]:
    """When the judge answered each request; nothing before there is a ledger."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{warehouse}/ledger.sqlite?mode=ro", uri=True)) as ledger,
    ):
        return dict(ledger.execute("select key, answered_at from answers").fetchall())
    return {}


@pytest.mark.fault("E3")
@pytest.mark.slow
def test_killed_runs_of_the_published_benchmarks_go_on_and_ask_nothing_twice(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    for name in ("mt_bench", "arena_hard"):
        shutil.copytree(shared(name), folder / name)
    study = tmp_path / "study.py"
    study.write_text(SHORT)
    environment = {**os.environ, "NIFT_BENCHMARKS": str(folder), "NIFT_STUDY": str(study)}
    run_killed(demo, tmp_path, environment, {"mt_bench": 80, "arena_hard": 500})
