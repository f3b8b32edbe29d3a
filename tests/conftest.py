"""What all tests share: one real run of the demo, made by the command a person types."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import settings

from dagster_project.command_line import main
from tests import demo_run
from tests.demo_run import NIFT, PROJECT, Demo

__all__ = ["NIFT", "PROJECT", "Demo"]

pytest_plugins = ["tests.counting", "tests.workers"]

# The same examples in every run, however long one takes on a machine that is doing other work.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Nothing in the tests may reach the network, whatever the machine allows.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
# Threads that spin while they wait take the core of whoever works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def nift(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`nift` as a person starts it, from the environment these tests run in."""
    return subprocess.run([NIFT, *arguments], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)


def nift_here(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What `nift` says and how it ends, without a process of its own, whose imports take a second.

    What it runs is run by one process, not by two at a time.
    """
    out, error, status = io.StringIO(), io.StringIO(), 0
    try:
        with (
            set_environment(environment),
            pytest.MonkeyPatch.context() as patch,
            chdir(PROJECT),
            redirect_stdout(out),
            redirect_stderr(error),
        ):
            patch.setattr("dagster_project.run_study.AT_ONCE", 1)
            main(list(arguments))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    return subprocess.CompletedProcess(["nift", *arguments], status, out.getvalue(), error.getvalue())


@contextmanager
def set_environment(environment: dict[str, str]) -> Iterator[None]:
    """This process's environment for a while; what is changed in it meanwhile ends with it."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _needs_demo(item: pytest.Item) -> bool:
    return "demo" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session", autouse=True)
def demo_under_way(request: pytest.FixtureRequest, run_folder: Path, worker_id: str) -> Iterator[Path]:
    """The folder of the demo as it is being made, behind all else, if any test is going to look at it."""
    folder = run_folder / "demo"
    if not any(_needs_demo(item) for item in request.session.items):
        yield folder
        return
    process = demo_run.start(folder, os.getpid() if worker_id == "master" else os.getppid())
    yield folder
    if process is not None:
        process.poll()  # so that its work counts as this process's


@pytest.fixture(scope="session")
def demo(demo_under_way: Path) -> Demo:
    """The demo study from nothing to its table and report, with a real Dagster instance."""
    return demo_run.finished(demo_under_way)


@contextmanager
def instance_at(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a folder, which the configuration in it names by the variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance
