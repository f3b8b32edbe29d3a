"""A worker of a command ends with it, behind the run that it is in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagster_project import worker
from tests.conftest import PROJECT

# A command as `nift run` is one. Its run takes the signal for an interruption, as Dagster does.
COMMAND = """
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from dagster_project import worker
from tests.dagster_project.test_worker import run

if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=worker.begin, initargs=("log",)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(run).result()
"""


def run() -> None:
    interrupted: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: interrupted.append(1))
    with worker.AT_WORK:
        Path("begun").write_text(str(os.getpid()))
        while not interrupted:
            time.sleep(0.05)
        time.sleep(1)
        Path("kept").touch()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_whose_command_was_ended_keeps_what_it_has_and_ends(ended_by: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    command = subprocess.Popen(
        [sys.executable, "command.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    other = int(command.stdout.readline())
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    at_work = int((tmp_path / "begun").read_text())
    command.send_signal(ended_by)
    command.wait(10)
    while not (gone(other) and gone(at_work)):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.05)
    assert (tmp_path / "kept").exists()
