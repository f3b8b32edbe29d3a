"""The event log with open connections: file for file Dagster's own, and nothing acknowledged is lost by a kill."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.event_log import MOST_OPEN, EventLog
from nift_assets.steps.dagster_internals import SqliteEventLogStorage
from tests.conftest import PROJECT

RUN = """
import os, sys
import dagster as dg

@dg.asset
def table() -> None: ...

with dg.DagsterInstance.get() as instance:
    for _ in range(int(sys.argv[1])):
        assert dg.materialize([table], instance=instance).success
    print(type(instance.event_log_storage).__name__, flush=True)
    os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    configuration = PROJECT / "dagster_project" / "instance" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_bytes(configuration.read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@dg.asset
def table() -> None: ...


def materialized(instance: dg.DagsterInstance) -> int:
    return len(instance.fetch_materializations(dg.AssetKey("table"), limit=100).records)


def test_a_killed_process_has_lost_nothing_and_dagsters_own_log_reads_it(home: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN, "2", str(int(signal.SIGKILL))],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (-signal.SIGKILL, "EventLog"), ran.stderr
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as instance:
        assert not isinstance(instance.event_log_storage, EventLog)
        assert materialized(instance) == 2
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}


def test_another_process_sees_each_event_at_once(home: Path) -> None:
    with dg.DagsterInstance.get() as writer, dg.DagsterInstance.get() as reader:
        for count in (1, 2, 3):
            assert dg.materialize([table], instance=writer).success
            assert materialized(reader) == count


def test_the_database_of_a_run_is_the_one_that_dagster_would_have_made(tmp_path: Path) -> None:
    for name, kind in {"ours": EventLog, "theirs": SqliteEventLogStorage}.items():
        log = kind(str(tmp_path / name))
        for run in ("first", "second"):
            log.get_logs_for_run(run)
        assert set(log.get_all_run_ids()) == {"first", "second"}
        log.dispose()

    def schema(path: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as database:
            return [
                *database.execute("select type, name, tbl_name, sql from sqlite_master order by name"),
                *database.execute("select version_num from alembic_version"),
                *database.execute("pragma journal_mode"),
            ]

    assert schema(tmp_path / "ours" / "second.db") == schema(tmp_path / "theirs" / "second.db")
    assert schema(tmp_path / "ours" / "first.db") == schema(tmp_path / "theirs" / "first.db")


def test_few_databases_stay_open_however_many_runs_there_are(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        for _ in range(MOST_OPEN + 2):
            assert dg.materialize([table], instance=instance).success
        open_files = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
        databases = {file for file in open_files if file.startswith(str(home / "history")) and file.endswith(".db")}
        assert 0 < len(databases) <= MOST_OPEN
        for run in instance.get_runs():
            assert any(event.is_dagster_event for event in instance.all_logs(run.run_id))


def test_a_log_that_was_deleted_under_the_process_is_begun_anew(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([table], instance=instance).success
        shutil.rmtree(home / "history" / "runs")
        (home / "history" / "runs").mkdir()
        assert materialized(instance) == 0


def test_whoever_watches_a_run_is_told_of_its_events(home: Path) -> None:
    with dg.DagsterInstance.get() as instance, dg.DagsterInstance.get() as watcher:
        run_id = dg.materialize([table], instance=instance).run_id
        seen: list[str] = []
        handler = lambda event, cursor: seen.append(event.user_message)  # noqa: E731
        watcher.event_log_storage.watch(run_id, None, handler)
        until = time.monotonic() + 20
        while not any("Finished execution of run" in message for message in seen) and time.monotonic() < until:
            time.sleep(0.05)
        watcher.event_log_storage.end_watch(run_id, handler)
    assert any("Finished execution of run" in message for message in seen)


def test_wiping_the_log_leaves_an_empty_one(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([table], instance=instance).success
        instance.event_log_storage.wipe()
        assert materialized(instance) == 0
        assert dg.materialize([table], instance=instance).success
        assert materialized(instance) == 1
