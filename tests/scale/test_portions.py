"""The simulation of portions says of small sizes what real processes, a real ledger and a real server come to."""

from __future__ import annotations

import math
import random
import sqlite3
import time
from collections import deque
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nift_assets.ledger.book import Book
from tests.counting import Counts
from tests.ledger.asking import Child, Task, books
from tests.ledger.fault_server import FaultServer
from tests.scale.portions import Plan, Took, simulate

SMALL = Plan(
    documents=1_200,
    portion=100,
    workers=3,
    in_flight=10,
    latency=0.1,
    spread=0.0,
    start=0.05,
    hours_between_failures=math.inf,
    restart=0.0,
    commit=0.004,
    lanes=1,
)


def really(plan: Plan, folder: Path, kills: int, seed: int = 1) -> Took:
    """The same with real processes, of which some are killed after a random part of their portion."""
    ledger, chance = folder / "ledger.sqlite", random.Random(seed)
    with FaultServer(latency=plan.latency) as server:
        url = f"sqlite:///{ledger}"
        Book(url)
        whole = Task(ledger=url, server=server.url, count=plan.documents, portion=plan.portion)
        whole = replace(whole, limits={"in_flight": plan.in_flight})
        before, took = commits(ledger), Took()
        waiting, doomed = deque(range(plan.portions)), set(chance.sample(range(plan.portions), kills))
        going: dict[int, tuple[Child, float]] = {}
        while waiting or going:
            while waiting and len(going) < plan.workers:
                number = waiting.popleft()
                dies = time.monotonic() + chance.uniform(0.3, 0.8) if number in doomed else math.inf
                going[number] = replace(whole, numbers=(number,)).start(), dies
                took.tasks += 1
            for number, (process, dies) in list(going.items()):
                if time.monotonic() > dies and process.running():
                    process.kill()
                    doomed.discard(number)
                    waiting.append(number)
                    took.failures += 1
                elif process.running():
                    continue
                else:
                    assert process.result()["counts"] == {"ok": plan.portion}
                del going[number]
            time.sleep(0.005)
        bills = server.bills()
    found = books(url, bills)
    found.check(most_extra=plan.in_flight)
    assert len(found.answers) == plan.documents
    took.sent, took.sent_again = len(bills), len(found.extra)
    took.transactions = commits(ledger) - before
    return took


def commits(ledger: Path) -> int:
    """How often a ledger has been written, which it counts itself."""
    with closing(sqlite3.connect(ledger)) as connection:
        return int(connection.execute("select commits from high_water").fetchone()[0])


@pytest.mark.parametrize(
    ("plan", "kills"),
    [(SMALL, 0), (SMALL, 3), pytest.param(replace(SMALL, documents=4_000, in_flight=20), 6, marks=pytest.mark.slow)],
)
def test_small_sizes_are_as_real_processes_have_them(plan: Plan, kills: int, tmp_path: Path, counts: Counts) -> None:
    real = really(plan, tmp_path, kills)
    # As often as the real ones were killed, which is random there too.
    whole = plan.portion * plan.latency / plan.in_flight * plan.portions
    told = simulate(replace(plan, hours_between_failures=whole / 3600 / kills if kills else math.inf))
    beside = {name: (getattr(told, name), getattr(real, name)) for name in ("tasks", "transactions", "sent_again")}
    counts("T28", f"simulated and real, {plan.portions} portions: {beside}")
    assert told.transactions / told.tasks == pytest.approx(real.transactions / real.tasks, rel=0.35)
    assert (real.tasks, real.failures) == (plan.portions + kills, kills)
    assert told.tasks == plan.portions + told.failures
    for took in (told, real):
        assert took.sent == plan.documents + took.sent_again
        assert took.sent_again <= took.failures * plan.in_flight


def test_what_fails_costs_what_was_in_flight_and_no_more() -> None:
    plan = replace(Plan(), documents=500_000, hours_between_failures=0.5)
    took, calm = simulate(plan), simulate(replace(plan, hours_between_failures=math.inf))
    assert took.failures > 20
    assert took.sent == 500_000 + took.sent_again
    assert took.sent_again <= took.failures * plan.in_flight
    assert (calm.sent, calm.failures, calm.tasks) == (500_000, 0, 100)
    assert took.hours > calm.hours


def test_a_slow_ledger_is_what_it_waits_for() -> None:
    plan = replace(Plan(), documents=500_000, hours_between_failures=math.inf)
    slow = simulate(replace(plan, lanes=1, commit=0.05))
    assert slow.ledger_share > 0.95
    assert slow.hours > 2 * simulate(plan).hours
