"""The simulation: a slice of its seeds, all of them, and the faults that it has to find."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import PROJECT
from tests.counting import Counts
from tests.ledger.simulation.mutants import MUTANTS, Mutant, killed_by
from tests.ledger.simulation.mutants import PROJECT as MUTATED
from tests.ledger.simulation.run import run, run_all, told

QUICK, ALL = range(1, 9), range(1, 201)


@pytest.mark.fault("T23", runs="8 seeds; slow: 200")
@pytest.mark.fault("T24", runs="8 seeds; slow: 200")
@pytest.mark.parametrize("seeds", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_whatever_happens_nothing_is_lost_and_nothing_is_paid_twice(seeds: range, counts: Counts) -> None:
    outcomes, seconds = run_all(seeds)
    wrong = [outcome for outcome in outcomes if outcome.violation is not None]
    assert not wrong, wrong[0].report()
    counts("T23", f"simulation: {told(outcomes, seconds)}, nothing lost, nothing paid twice")


def test_a_seed_is_the_same_world_in_any_process() -> None:
    seed = 9
    script = f"from tests.ledger.simulation.run import run; print(hash('ferry'), run({seed}).counts)"
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    hashed, _, counts = other.strip().partition(" ")
    assert int(hashed) != hash("ferry"), "both processes hash alike; run the tests without PYTHONHASHSEED=1"
    assert counts == str(run(seed).counts)


def test_every_planted_fault_still_has_its_place() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
    for mutant in MUTANTS:
        assert mutant.planted((MUTATED / "nift_assets" / "ledger" / mutant.file).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(mutant: Mutant, counts: Counts) -> None:
    report = killed_by(mutant)
    assert report is not None, "it lives"
    counts("T23", f"planted: {mutant.name}; found: {report.splitlines()[0]}")
