"""What all tests share: one real run of the demo, made by the command a person types."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import settings

from tests.counting import counts, pytest_terminal_summary

__all__ = ["counts", "pytest_terminal_summary"]

PROJECT = Path(__file__).parent.parent

# The same examples in every run, however long one takes on a machine that is doing other work.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Nothing in the tests may reach the network, whatever the machine allows.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")


@dataclass(frozen=True)
class Demo:
    """A finished run of `nift demo`: where its tables and its Dagster instance lie, and what it printed.

    `pace` is how many times the machine's usual time for a piece of work it took while the demo was made.
    """

    warehouse: Path
    home: Path
    printed: str = ""
    cpu_seconds: float = 0
    pace: float = 1

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NIFT_WAREHOUSE": str(self.warehouse), "DAGSTER_HOME": str(self.home)}


def nift(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`nift` as a person starts it, from the environment these tests run in."""
    command = [str(Path(sys.executable).with_name("nift")), *arguments]
    return subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that look at the finished demo come last: it is made while the others wait for servers and clocks."""
    items.sort(key=_needs_demo)


def _needs_demo(item: pytest.Item) -> bool:
    return "demo" in getattr(item, "fixturenames", ())


@dataclass
class _Started:
    places: Demo
    process: subprocess.Popen[bytes]
    output: Path


@pytest.fixture(scope="session", autouse=True)
def demo_under_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Started | None]:
    """The demo as it is being made, behind all else that needs the processor, if any test is going to look at it."""
    if not any(_needs_demo(item) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("demo")
    places = Demo(folder / "warehouse", folder / "home")
    command = ["nice", str(Path(sys.executable).with_name("nift")), "demo"]
    with (folder / "printed").open("wb") as output:
        process = subprocess.Popen(
            command,
            env=places.environment(),
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield _Started(replace(places, pace=_pace()), process, folder / "printed")
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def demo(demo_under_way: _Started | None) -> Demo:
    """The demo study from nothing to its table and report, with a real Dagster instance."""
    assert demo_under_way is not None
    process = demo_under_way.process
    # Its own CPU seconds and those of the processes it has waited for, whatever else was started from here.
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    printed = demo_under_way.output.read_text()
    assert process.returncode == 0, printed
    return replace(
        demo_under_way.places,
        printed=printed,
        cpu_seconds=used.ru_utime + used.ru_stime,
        pace=max(_pace(), demo_under_way.places.pace),
    )


def _pace() -> float:
    """The time of Dagster's import here and now by the 0.5 s it takes where the limits of the tests were set."""
    script = "import dagster, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return max(1.0, float(ran.stdout) / 0.5)


@contextmanager
def instance_at(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a folder, which the configuration in it names by the variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance
