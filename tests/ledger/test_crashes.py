"""Processes that ask are killed, stopped, interrupted and started twice: nothing paid is lost, nothing is paid again.

Each test lays the ledger beside the log of the server that was asked; that comparison is the proof.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.corpus import halves
from nift_assets.ledger.book import Book
from nift_assets.ledger.dispatch import Dispatch
from nift_assets.ledger.progress import Stop
from nift_assets.ledger.question_source import QuestionSource
from nift_assets.ledger.tables import sessions
from nift_assets.rows import Limits
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.ledger.asking import (
    PRICE,
    Arrivals,
    Books,
    Reader,
    Task,
    books,
    open_sessions,
    provider,
    questions,
    same_text,
    wait,
)
from tests.ledger.fault_server import Bill, FaultServer
from tests.ui.server import UI, free_port, ui

IN_FLIGHT = 16
ONLINE = tuple(point for point in crash_points.POINTS if not point.startswith(("batch_", "hub_", "review_")))


# -- T1: killed at any moment


def kill_at_random(ledger: str, *, requests: int, kills: int, seed: int) -> str:
    """Asks in processes that are killed after random numbers of arrivals, then to the end; what was counted."""
    chance = random.Random(seed)
    points = sorted(chance.sample(range(requests * 19 // 20), kills))
    reader = Reader(ledger)
    with FaultServer(latency=0.015) as server:
        task = Task(ledger=ledger, server=server.url, count=requests, limits={"in_flight": IN_FLIGHT})
        arrivals = Arrivals(server)
        for point in points:
            process = task.start()
            before = arrivals.count()
            while arrivals.count() < max(point, before + 1):
                reader.look()
                assert process.running()
            time.sleep(chance.uniform(0, 0.02))
            reader.look()
            process.kill()
        asked = task.ask_when_free()
        truth = server.truth()
        bills = server.bills()
    found = books(ledger, bills)
    assert not reader.lost()
    found.check(most_extra=IN_FLIGHT)
    assert asked.counts == {"ok": requests}
    assert len({row["key"] for row in found.attempts.values()}) == requests
    assert same_text(ledger) == requests
    assert len(bills) == requests + len(found.extra)
    assert truth["max_in_flight"] <= 2 * IN_FLIGHT  # a killed client's requests are still being answered
    assert not open_sessions(ledger)
    return (
        f"{kills} kills, {requests:,} keys, {len(reader.seen):,} seen and {len(reader.lost())} lost, "
        f"{len(found.resent)} re-sent, {len(found.extra)} extra bills = {len(found.unknown)} unknown "
        f"({len(found.never_left)} more never left)"
    )


@pytest.mark.fault("T1", runs="5 kills in 2,000 requests; slow: 20, twice")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_nothing_and_pays_nothing_twice(seed: int, sqlite_url: str, counts: Counts) -> None:
    kills = 5 if seed == 1 else 20
    counts("T1", kill_at_random(sqlite_url, requests=2000, kills=kills, seed=seed))


@pytest.mark.fault("T1", runs="2 kills in 400")
def test_a_kill_beside_postgresql_loses_nothing_and_pays_nothing_twice(database_url: str, counts: Counts) -> None:
    counts("T1", "PostgreSQL: " + kill_at_random(database_url, requests=400, kills=2, seed=4))


# -- T2: killed at each named point


def crash_at(ledger: str, server: FaultServer, point: str, visit: int) -> tuple[int, int]:
    """Sixty requests in four calls, killed at a visit of a point and asked again: bills without an answer, and
    attempts that never left."""
    model = f"{point}-{visit}"
    task = Task(
        ledger=ledger,
        server=server.url,
        count=60,
        calls=4,
        model=model,
        limits={"in_flight": 4, "backoff_seconds": 0.01},
    )
    process = task.start(crash=f"{point}:{visit}")
    assert process.end() == -signal.SIGKILL, f"{point} has no visit {visit}"
    task.ask()
    found = books(ledger, [bill for bill in server.bills() if bill.model == model])
    found.check(most_extra=4)
    assert same_text(ledger) == 60
    assert len(found.bills) == 60 + len(found.extra)
    if point in ("before_intent", "after_intent"):
        assert not found.in_state("unknown")
    if point == "after_body":
        assert found.extra  # the one whose body was at hand, if no other
    return len(found.extra), len(found.never_left)


def visits(point: str) -> tuple[int, int, int]:
    """The first visit of a point, the second, and a late one."""
    return (1, 2, 4) if point.endswith("_intent") else (1, 2, 12) if point.endswith("_commit") else (1, 2, 55)


@pytest.mark.fault("T2", runs="21 kills")
def test_a_kill_at_each_point_loses_nothing_and_pays_nothing_twice(tmp_path: Path, counts: Counts) -> None:
    runs = [(point, visit) for point in ONLINE for visit in visits(point)]
    assert len(runs) == 21
    with FaultServer(latency=0.005) as server, ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(lambda run: crash_at(f"sqlite:///{tmp_path}/{run[0]}-{run[1]}.sqlite", server, *run), runs)
        )
    extra, never_left = (sum(column) for column in zip(*done, strict=True))
    counts(
        "T2",
        f"{len(ONLINE)} points x 3 visits, 60 requests each: 0 lost, 0 re-sent, {extra} extra bills = {extra} unknown "
        f"({never_left} more never left)",
    )


@pytest.mark.fault("T2")
def test_every_named_point_is_visited(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    visited: Counter[str] = Counter()
    monkeypatch.setattr(crash_points, "reach", lambda point: visited.update([point]))
    with FaultServer() as server:
        Task(ledger=sqlite_url, server=server.url, count=10).ask()
    assert visited.keys() == set(ONLINE)
    assert visited["before_send"] == visited["after_send"] == visited["after_body"] == 10


# -- T3: asked to end


def interrupt(ledger: str, server: FaultServer, number: int, signals: int) -> float:
    """A process is interrupted while it asks: the seconds it took to end. Nothing in flight is given up."""
    model = f"interrupted-{number}"
    task = Task(ledger=ledger, server=server.url, count=240, model=model)
    process = task.start()
    wait(lambda: sum(bill.model == model for bill in server.bills()) >= 30 + 3 * number, every=0.05)
    began = time.monotonic()
    process.signal(signals)
    assert process.end(40) == (143 if signals == signal.SIGTERM else 1)
    seconds = time.monotonic() - began
    found = books(ledger, [bill for bill in server.bills() if bill.model == model])
    found.check(most_extra=0)
    assert not found.in_state("unknown")
    assert len(found.answers) == len(found.bills) < 240
    task.ask()
    found = books(ledger, [bill for bill in server.bills() if bill.model == model])
    found.check(most_extra=0)
    assert len(found.bills) == same_text(ledger) == 240
    return seconds


@pytest.mark.fault("T3", runs="3; slow: 10")
@pytest.mark.parametrize("runs", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_an_interrupted_process_waits_for_what_is_in_flight(runs: int, tmp_path: Path, counts: Counts) -> None:
    with FaultServer(latency=0.3) as server, ThreadPoolExecutor(4) as pool:
        seconds = list(
            pool.map(
                lambda n: interrupt(
                    f"sqlite:///{tmp_path}/{n}.sqlite", server, n, signal.SIGTERM if n % 2 else signal.SIGINT
                ),
                range(runs),
            )
        )
    assert max(seconds) < 35
    counts("T3", f"{runs} processes interrupted, {runs * 240:,} keys: 0 unknown, ended within {max(seconds):.1f} s")


def test_an_interruption_before_the_first_request_lets_none_leave(sqlite_url: str) -> None:
    with FaultServer() as server:
        task = Task(ledger=sqlite_url, server=server.url, count=20)
        ledger, asker = Book(sqlite_url), task.asker()
        with ledger.session(asker.writer) as session:
            dispatch = Dispatch(ledger, session, asker, provider(server.url), Limits(), PRICE)
            dispatch.stop(Stop(reason="interrupted", remedy="run it again", cause="interrupted"))
            asyncio.run(dispatch.run(QuestionSource.of(questions(20))))
        assert dispatch.stopped is not None
        assert server.bills() == []
        assert task.ask().sent == 20


# -- T4: suspended


def suspend(ledger: str, server: FaultServer, number: int, *, limit: float, asleep: float) -> int:
    """A process sleeps longer than a request may take; how many attempts it gave up for that."""
    model = f"suspended-{number}"
    limits = {"in_flight": IN_FLIGHT, "seconds_per_request": limit}
    task = Task(ledger=ledger, server=server.url, count=200, model=model, limits=limits)
    process = task.start()
    wait(lambda: sum(bill.model == model for bill in server.bills()) >= 20 + 15 * number, every=0.02)
    process.signal(signal.SIGSTOP)
    time.sleep(asleep)
    process.signal(signal.SIGCONT)
    assert process.result()["counts"] == {"ok": 200}
    found = books(ledger, [bill for bill in server.bills() if bill.model == model])
    found.check(most_extra=IN_FLIGHT)
    assert len(found.bills) == 200 + len(found.extra)
    assert same_text(ledger) == 200
    return len(found.extra)


@pytest.mark.fault("T4")
@pytest.mark.parametrize("runs", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_process_that_slept_takes_the_answers_that_came_meanwhile(runs: int, tmp_path: Path, counts: Counts) -> None:
    asleep, limit = (2.5, 1.0) if runs == 1 else (12.0, 5.0)
    with FaultServer(latency=0.1) as server, ThreadPoolExecutor(5) as pool:
        extra = list(
            pool.map(
                lambda n: suspend(f"sqlite:///{tmp_path}/{n}.sqlite", server, n, limit=limit, asleep=asleep),
                range(runs),
            )
        )
    assert extra == [0] * runs  # only time a process was awake counts
    counts(
        "T4", f"{runs} processes asleep for {asleep:g} s with {limit:g} s per request: 0 lost, {sum(extra)} asked again"
    )


def sleep_through_an_outage(folder: Path, port: int, *, asleep: float) -> tuple[int, int]:
    """A process sleeps while its server goes and another comes in its place: every connection it had is dead. How many
    of its requests are unknown since, and how many came back in vain."""
    ledger, log = f"sqlite:///{folder}/ledger.sqlite", folder / "bills.jsonl"
    limits = {"in_flight": IN_FLIGHT, "seconds_per_request": 30.0}
    with FaultServer(latency=0.2, log=log, port=port) as server:
        task = Task(ledger=ledger, server=server.url, count=200, limits=limits)
        process = task.start()
        wait(lambda: len(server.bills()) >= 60, every=0.02)
        server.set(latency=600.0)
        before = len(server.bills())
        wait(lambda: len(server.bills()) > before, every=0.02)  # billed, and not answered
        process.signal(signal.SIGSTOP)
        server.process.kill()
        time.sleep(asleep)
    with FaultServer(log=log, port=port) as server:
        process.signal(signal.SIGCONT)
        assert process.result()["counts"] == {"ok": 200}
        found = books(ledger, server.bills())
    found.check(most_extra=IN_FLIGHT)
    assert len(found.bills) == 200 + len(found.extra)
    assert same_text(ledger) == 200
    return len(found.extra), len(found.in_state("failed"))


@pytest.mark.fault("T4", runs="1 asleep for 0.5 s; slow: 5 for 120 s")
@pytest.mark.parametrize(("runs", "asleep"), [(1, 0.5), pytest.param(5, 120.0, marks=pytest.mark.slow)])
def test_a_process_whose_connections_died_in_its_sleep_asks_again_and_no_row_twice(
    runs: int, asleep: float, tmp_path: Path, counts: Counts
) -> None:
    ports = [free_port() for _ in range(runs)]
    folders = [tmp_path / str(port) for port in ports]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(runs) as pool:
        found = list(pool.map(lambda n: sleep_through_an_outage(folders[n], ports[n], asleep=asleep), range(runs)))
    extra = [each for each, _ in found]
    assert min(extra) > 0  # what had been billed when the connections died
    counts(
        "T4", f"{runs} processes asleep for {asleep:g} s, their connections dead: 0 lost, {extra} unknown, asked again"
    )


# -- T6: two processes


def ask_together(ledger: str, server: FaultServer, number: int) -> int:
    """Two processes ask as one writer at once; the duplicates the server saw."""
    model = f"together-{number}"
    task = Task(ledger=ledger, server=server.url, count=32, model=model, limits={"in_flight": 4})
    pair = [task.start(), task.start()]
    refusals = [why for process in pair if (why := process.refusal())]
    assert refusals == ["another run is asking as s/t right now; wait until it ends"]
    found = books(ledger, [bill for bill in server.bills() if bill.model == model])
    found.check(most_extra=0)
    assert same_text(ledger) == 32
    return len(found.bills) - 32


@pytest.mark.fault("T6", runs="3 pairs; slow: 10")
@pytest.mark.parametrize("pairs", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_of_two_processes_of_one_writer_the_second_is_refused(pairs: int, tmp_path: Path, counts: Counts) -> None:
    with FaultServer(latency=0.15) as server, ThreadPoolExecutor(2) as pool:
        duplicates = sum(pool.map(lambda n: ask_together(f"sqlite:///{tmp_path}/{n}.sqlite", server, n), range(pairs)))
    assert duplicates == 0
    counts("T6", f"{pairs} pairs of one writer: {pairs} refused, {duplicates} keys sent twice")


@pytest.mark.fault("T6")
def test_of_two_processes_beside_postgresql_the_second_is_refused(database_url: str, counts: Counts) -> None:
    with FaultServer(latency=0.15) as server:
        duplicates = ask_together(database_url, server, 0)
    assert duplicates == 0
    counts("T6", f"PostgreSQL: 1 pair of one writer: 1 refused, {duplicates} keys sent twice")


def two_studies(ledger: str, server: FaultServer) -> tuple[Task, Task]:
    """The same questions, wanted by two studies."""
    one = Task(ledger=ledger, server=server.url, count=200, study="one", writer="one/t", limits={"in_flight": 8})
    return one, dataclasses.replace(one, study="other", writer="other/t")


@pytest.mark.fault("T6")
def test_two_studies_that_ask_the_same_pay_for_it_once(ledger_url: str, counts: Counts) -> None:
    with FaultServer(latency=0.05) as server:
        one, other = two_studies(ledger_url, server)
        first = one.start()
        wait(lambda: len(server.bills()) >= 10, every=0.02)
        told = [process.result() for process in (first, other.start())]
        found = books(ledger_url, server.bills())
    assert [t["counts"] for t in told] == [{"ok": 200}] * 2
    assert sum(t["sent"] for t in told) == len(found.bills) == 200
    found.check(most_extra=0)
    counts("T6", f"{kind(ledger_url)}: two studies, 200 keys both want: {len(found.bills)} sent")


def test_the_second_study_takes_over_from_the_first_that_was_killed(ledger_url: str, counts: Counts) -> None:
    with FaultServer(latency=0.05) as server:
        one, other = two_studies(ledger_url, server)
        first = one.start()
        wait(lambda: len(server.bills()) >= 10, every=0.02)
        second = other.start()
        wait(lambda: len(open_sessions(ledger_url)) == 2 or not second.running())
        first.kill()
        told = second.result()
        found = books(ledger_url, server.bills())
    assert told["counts"] == {"ok": 200}
    assert 0 < told["sent"] <= 200
    found.check(most_extra=8)
    assert same_text(ledger_url) == 200
    assert not open_sessions(ledger_url)
    counts(
        "T6",
        f"{kind(ledger_url)}: first of two studies killed: second asked {told['sent']} of 200, 0 re-sent, "
        f"{len(found.extra)} extra bills = {len(found.unknown)} unknown",
    )


def kind(ledger: str) -> str:
    return "SQLite" if ledger.startswith("sqlite") else "PostgreSQL"


# -- T5: Dagster's processes

# Starts a process that asks, says who it is, and does not end before it is killed.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "tests.ledger.asking", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.fault("T5")
def test_a_step_whose_parent_has_gone_ends_by_itself(sqlite_url: str, counts: Counts) -> None:
    with FaultServer(latency=0.6) as server:
        task = Task(ledger=sqlite_url, server=server.url, count=200)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, json.dumps(dataclasses.asdict(task))],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        wait(lambda: len(server.bills()) >= 20, every=0.05)
        parent.kill()
        began = time.monotonic()
        with pytest.raises(ValueError, match="another run is asking as s/t"):
            task.ask()
        out, error = parent.communicate(timeout=30)  # the orphan holds the other end
        seconds = time.monotonic() - began
        assert "the process that started this step has gone; run it again" in json.loads(out)["stopped"], error
        wait(lambda: not Path(f"/proc/{orphan}").exists(), 10)
        asked = len(server.bills())
        found = books(sqlite_url, server.bills())
        found.check(most_extra=0)
        assert asked < 60
        server.set(latency=0.0)
        assert task.ask().sent == 200 - asked
    counts("T5", f"an orphan with 16 in flight ended by itself after {seconds:.1f} s, 0 unknown, a second was refused")


STUDY = """
import dataclasses
from nift_assets import studies
from nift_assets.studies import Limits, Teacher

DEMO = studies.load("demo")
REMOTE = Teacher(name="remote", provider="openai", model="m", base_url={url!r}, key_variable="FAULT_SERVER_KEY",
                 limits=Limits(in_flight=16, backoff_seconds=0.05))
STUDY = dataclasses.replace(DEMO, name="faults", teachers=(*DEMO.teachers, REMOTE))
"""
# What `nift demo` has its worker processes do for a partition, as soon as it is told to.
WORKER = """
import dagster as dg
from dagster_project.definitions import defs

input()
with dg.DagsterInstance.get() as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    tables = [dg.AssetKey(name) for name in ("completions", "completion_rejects")]
    result = job.execute_in_process(
        partition_key="remote", asset_selection=tables, instance=instance, raise_on_error=False
    )
    raise SystemExit(0 if result.success else 1)
"""


@dataclasses.dataclass(frozen=True)
class Place:
    """A warehouse with the first halves of so many documents, and a study whose teacher is the fault server."""

    folder: Path
    documents: int

    @property
    def ledger(self) -> str:
        return f"sqlite:///{self.folder}/warehouse/ledger.sqlite"

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("NIFT_", "DAGSTER_"))},
            "NIFT_STUDY": str(self.folder / "own.py"),
            "NIFT_WAREHOUSE": str(self.folder / "warehouse"),
            "DAGSTER_HOME": str(self.folder / "home"),
            "FAULT_SERVER_KEY": "sk-test-0123456789abcdef",
            "PYTHONPATH": str(PROJECT),
        }

    def completions(self) -> pl.DataFrame:
        return Store(root=str(self.folder / "warehouse"), study="faults").read("completions", "remote")

    def check(self, bills: Sequence[Bill]) -> Books:
        """That every document has the text the server gives to its first half, and nothing was paid twice."""
        found = books(self.ledger, bills)
        found.check(most_extra=IN_FLIGHT)
        rows = self.completions()
        assert rows["status"].to_list() == ["ok"] * self.documents
        assert same_text(self.ledger) == self.documents == rows["request_key"].n_unique()
        return found


def place(folder: Path, server: FaultServer, documents: int) -> Place:
    (folder / "own.py").write_text(STUDY.format(url=f"{server.url}/v1"))
    (folder / "home").mkdir()
    configuration = PROJECT / "dagster_project" / "instance" / "dagster.yaml"
    (folder / "home" / "dagster.yaml").write_bytes(configuration.read_bytes())
    rest = "It has a river and a bridge. " * 4
    texts = [f"Article {number} tells of a town. {rest}" for number in range(documents)]
    sample = pl.DataFrame(
        {
            "document_id": [f"{number:032x}" for number in range(documents)],
            "sample_rank": range(documents),
            "text": texts,
        }
    )
    halved = halves.halve(sample, seed=1)
    version = Version(data=data_version(halved), inputs="made by a test")
    Store(root=str(folder / "warehouse"), study="faults").write("halves", None, halved, version)
    return Place(folder, documents)


def worker(at: Place) -> subprocess.Popen[str]:
    """A process in which Dagster makes the completions of the remote teacher, ready to begin."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=at.folder,
        env=at.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.fault("T3", "T5")
@pytest.mark.slow  # sixteen seconds; the orphan is the quick one of its row
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_of_dagster_that_was_ended_pays_nothing_twice_when_it_is_run_again(
    how: signal.Signals, tmp_path: Path, counts: Counts
) -> None:
    with FaultServer(latency=0.2) as server:
        at = place(tmp_path, server, 300)
        arrivals = Arrivals(server)
        # Importing Dagster takes seconds, and two can do so at once.
        ended, last = worker(at), worker(at)
        begin(ended)
        wait(lambda: arrivals.count() >= 60)
        began = time.monotonic()
        ended.send_signal(how)
        out, _ = ended.communicate(timeout=60)
        seconds = time.monotonic() - began
        assert seconds < 35
        if how == signal.SIGKILL:
            assert ended.returncode == -signal.SIGKILL
        else:
            assert ended.returncode not in (0, -how), out
            found = books(at.ledger, server.bills())
            found.check(most_extra=0)
            assert not found.in_state("unknown")
            assert 60 <= len(found.answers) == len(found.bills) < 250
        server.set(latency=0.0)
        out, _ = last.communicate("\n", timeout=60)
        assert last.returncode == 0, out
        found = at.check(server.bills())
    extra = f"{len(found.extra)} extra bills = {len(found.unknown)} unknown"
    if how == signal.SIGKILL:
        counts("T5", f"a Dagster run killed in 300 requests and run again: 0 re-paid, {extra}")
    else:
        assert not found.extra
        counts("T3", f"a Dagster run, SIGTERM with 16 in flight: {extra}, ended within {seconds:.1f} s")


LAUNCH = """
mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
} }
"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"


def launch(running: UI, *, retries: int = 0) -> str:
    """Launches a run of the remote teacher's completions as the UI does; its id. The daemon retries it so often."""
    parameters = {
        "selector": {
            "repositoryLocationName": "nift",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["completions"]}, {"path": ["completion_rejects"]}],
        },
        "mode": "default",
        "runConfigData": {},
        "executionMetadata": {
            "tags": [
                {"key": "dagster/partition", "value": "remote"},
                {"key": "dagster/max_retries", "value": str(retries)},
            ]
        },
    }
    launched = running.graphql(LAUNCH, {"parameters": parameters})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def status(running: UI, run: str) -> str:
    return str(running.graphql(STATUS, {"id": run})["runOrError"]["status"])


def alive(at: Place) -> list[int]:
    """The processes that hold an open session of the ledger now."""
    engine = sa.create_engine(at.ledger)
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("sessions"):
            return []
        pids = connection.execute(sa.select(sessions.c.pid).where(~sessions.c.ended)).scalars().all()
    engine.dispose()
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.fault("T3", "T5", runs="5 kills in 500 requests")
@pytest.mark.slow
def test_runs_of_a_real_daemon_are_killed_doubled_and_cancelled(tmp_path: Path, counts: Counts) -> None:
    """The worker is killed five times and the run launched again at once; then two together; then one is cancelled."""
    with FaultServer(latency=0.5) as server, ExitStack() as stack:
        at = place(tmp_path, server, 500)
        arrivals = Arrivals(server)
        running = stack.enter_context(ui(at.environment(), tmp_path))
        most = 0

        def reached(count: int) -> Callable[[], bool]:
            def look() -> bool:
                nonlocal most
                most = max(most, len(alive(at)))
                return arrivals.count() >= count

            return look

        for number in range(5):
            launch(running)
            wait(reached(arrivals.count() + 30 + 4 * number), 90, every=0.05)
            (worker,) = alive(at)
            os.kill(worker, signal.SIGKILL)
        first = launch(running)
        wait(reached(arrivals.count() + 20), 90, every=0.05)
        second = launch(running)
        wait(lambda: status(running, second) in ("FAILURE", "SUCCESS"), 90, every=0.2)
        assert status(running, second) == "FAILURE"
        assert status(running, first) == "STARTED"
        most = max(most, len(alive(at)))
        began = time.monotonic()
        running.graphql(TERMINATE, {"id": first})
        wait(lambda: not alive(at), 60, every=0.05)
        seconds = time.monotonic() - began
        wait(lambda: status(running, first) == "CANCELED", 60, every=0.2)
        cancelled = books(at.ledger, server.bills())
        last_session = max(session for session, _ in cancelled.attempts)
        assert not [attempt for attempt in cancelled.in_state("unknown") if attempt[0] == last_session]
        server.set(latency=0.0)
        last = launch(running)
        wait(lambda: status(running, last) in ("FAILURE", "SUCCESS"), 120, every=0.5)
        assert status(running, last) == "SUCCESS"
        found = at.check(server.bills())
    assert most == 1
    assert seconds < 35
    assert len({session for session, _ in found.extra}) <= 5
    counts("T3", f"a run cancelled in the UI: 0 unknown, ended within {seconds:.1f} s")
    counts(
        "T5",
        f"real daemon, 5 workers killed in 500 requests, 1 run launched beside another: at most {most} writer, "
        f"0 re-paid, {len(found.extra)} extra bills = {len(found.unknown)} unknown",
    )
