"""What all tests share: one real run of the demo, made by the command a person types."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest

from tests.counting import counts, pytest_terminal_summary

__all__ = ["counts", "pytest_terminal_summary"]

PROJECT = Path(__file__).parent.parent

# Nothing in the tests may reach the network, whatever the machine allows.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")


@dataclass(frozen=True)
class Demo:
    """A finished run of `nift demo`: where its tables and its Dagster instance lie, and what it printed."""

    warehouse: Path
    home: Path
    printed: str
    seconds: float
    cpu_seconds: float

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NIFT_WAREHOUSE": str(self.warehouse), "DAGSTER_HOME": str(self.home)}


def nift(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`nift` as a person starts it, from the environment these tests run in."""
    command = [str(Path(sys.executable).with_name("nift")), *arguments]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo study from nothing to its table and report, with a real Dagster instance."""
    folder = tmp_path_factory.mktemp("demo")
    places = Demo(folder / "warehouse", folder / "home", printed="", seconds=0, cpu_seconds=0)
    began, cpu_before = time.monotonic(), cpu_of_children()
    ran = nift("demo", environment=places.environment())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seconds, cpu_seconds = time.monotonic() - began, cpu_of_children() - cpu_before
    return replace(places, printed=ran.stdout, seconds=seconds, cpu_seconds=cpu_seconds)


@contextmanager
def instance_at(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a folder, which the configuration in it names by the variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance


def cpu_of_children() -> float:
    """The CPU seconds of all processes that were started from here and have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
