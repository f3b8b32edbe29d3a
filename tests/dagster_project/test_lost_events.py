"""Dagster's own database is lost, locked or of another version: the tables are found, and nobody is paid again."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project import event_log, run_study, settings
from dagster_project.event_log import EventLog
from nift_assets.store import Store
from tests.conftest import instance_at
from tests.counting import Counts
from tests.ledger.fault_server import FaultServer
from tests.ledger.test_crashes import Place, place

DOCUMENTS = 12
RUN = run_study.PartitionRun(
    "teacher remote", "remote", ("completions",), ("completions", "completion_rejects"), frozenset()
)


# Forked from a process that has imported what takes seconds. Polars must not have worked in it, and it works when the
# definitions are loaded.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload([__name__, "dagster._core.execution.api", "tests.ledger.asking", "aiohttp", "pytest"])


def run(at: Place, prepare: Callable[..., None] | None = None, *arguments: Any) -> int:
    """What `nift run` does for the remote teacher, in a process of its own that is prepared first: how it ended."""
    child = CHILDREN.Process(target=_run, args=(at, prepare, arguments))
    child.start()
    child.join(120)
    assert child.exitcode is not None, "it does not end"
    return child.exitcode


def _run(at: Place, prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(at.environment())
    run_study.start_warm = lambda: None  # type: ignore[attr-defined]
    if prepare:
        prepare(*arguments)
    settings.dagster_home("faults")
    outcome = run_study.execute_one(RUN)
    (at.folder / "said").write_text(outcome.error or "")
    raise SystemExit(1 if outcome.error else 0)


def after_the_rename(events: int) -> None:
    """Has this process killed when its completions have their name, and so many events have been stored since."""
    write, store_event, left = Store.write, EventLog.store_event, [events]
    renamed: list[bool] = []

    def writing(self: Store, table: str, *rest: Any) -> Path:
        made = write(self, table, *rest)
        if table == "completions":
            renamed.append(True)
            end_if_so()
        return made

    def storing(self: EventLog, event: Any) -> None:
        store_event(self, event)
        if renamed:
            left[0] -= 1
            end_if_so()

    def end_if_so() -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.write, EventLog.store_event = writing, storing  # type: ignore[assignment, method-assign]


def registered(at: Place) -> bool:
    with instance_at(at.folder / "home") as instance:
        return "remote" in instance.get_materialized_partitions(dg.AssetKey("completions"))


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.fault("S7", runs="1 kill; slow: 20")
def test_a_table_whose_event_is_lost_is_found_and_registered_and_nobody_is_paid_again(
    kills: int, tmp_path: Path, counts: Counts
) -> None:
    found = []
    with FaultServer() as server:
        for events in range(kills):
            (tmp_path / str(events)).mkdir()
            at = place(tmp_path / str(events), server, DOCUMENTS)
            before = len(server.bills())
            assert run(at, after_the_rename, events) == -signal.SIGKILL
            assert at.completions().height == DOCUMENTS
            found.append(registered(at))
            assert run(at) == 0, (at.folder / "said").read_text()
            assert registered(at)
            assert len(server.bills()) - before == DOCUMENTS
    counts("S7", f"{kills} kills between the rename and the end, {found.count(False)} before the event: 0 re-paid")


def lock_for(seconds: float, at: Place, patience: float) -> None:
    """Has somebody else hold the log of all runs from when the completions have their name, for so long."""
    write = Store.write

    def writing(self: Store, table: str, *rest: Any) -> Path:
        made = write(self, table, *rest)
        if table == "completions":
            index = str(at.folder / "home" / "history" / "runs" / "index.db")
            other = sqlite3.connect(index, isolation_level=None, check_same_thread=False)
            other.execute("begin exclusive")
            threading.Timer(seconds, other.close).start()
        return made

    Store.write = writing  # type: ignore[assignment, method-assign]
    event_log.BUSY_SECONDS = patience  # type: ignore[assignment]


@pytest.mark.slow
@pytest.mark.fault("S7")
@pytest.mark.parametrize(("locked", "patience"), [(2.0, 60), (6.0, 0.5)])
def test_a_log_that_somebody_else_holds_is_waited_for_or_the_next_run_registers_the_table(
    locked: float, patience: float, tmp_path: Path, counts: Counts
) -> None:
    with FaultServer() as server:
        at = place(tmp_path, server, DOCUMENTS)
        ended = run(at, lock_for, locked, at, patience)
        assert (ended == 0) == registered(at) == (locked < patience)
        assert run(at) == 0, (at.folder / "said").read_text()
        assert registered(at)
        assert len(server.bills()) == DOCUMENTS
    counts("S7", f"the log of all runs locked for {locked:g} s, waited for {patience:g} s: 0 re-paid")


def downgrade(home: Path) -> None:
    """The storage as an earlier Dagster left it: its tables as they were some revisions ago."""
    import sqlalchemy as sa
    from alembic import command
    from dagster._core.storage.sql import get_alembic_config

    def older(database: Path, config: Any, revisions: str) -> None:
        engine = sa.create_engine(f"sqlite:///{database}")
        read = sa.text("select version_num from alembic_version")
        with engine.begin() as connection:
            newest = connection.execute(read).scalar_one()
            config.attributes["connection"] = connection
            command.downgrade(config, revisions)
        with engine.connect() as connection:
            assert connection.execute(read).scalar_one() != newest
        engine.dispose()

    import dagster._core.storage.event_log.sqlite as events
    import dagster._core.storage.runs.sqlite as runs

    older(home / "history" / "runs" / "index.db", get_alembic_config(events.__file__), "-3")
    older(home / "history" / "runs.db", get_alembic_config(runs.__file__), "-3")


LOSSES: dict[str, Callable[[Path], None]] = {
    "the whole folder": shutil.rmtree,
    "its configuration": lambda home: (home / "dagster.yaml").unlink(),
    "the last three revisions of its tables": downgrade,
}


@pytest.mark.fault("S8")
@pytest.mark.parametrize(
    "lost", ["the whole folder", *(pytest.param(n, marks=pytest.mark.slow) for n in [*LOSSES][1:])]
)
def test_tables_do_not_depend_on_dagsters_folder(lost: str, tmp_path: Path) -> None:
    with FaultServer() as server:
        at = place(tmp_path, server, DOCUMENTS)
        assert run(at) == 0, (at.folder / "said").read_text()
        before = at.completions()
        LOSSES[lost](at.folder / "home")
        assert at.completions().equals(before)
        assert run(at) == 0, (at.folder / "said").read_text()
        assert registered(at)
        assert at.completions().equals(before)
        assert len(server.bills()) == DOCUMENTS
