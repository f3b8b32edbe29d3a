"""Whoever computes has a GPU of its own: names as the driver has them, locks that end with their process."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project import settings
from dagster_project.processes import Processes, computing_on
from nift_training import gpus

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa-0)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb-1)
  MIG 1g.18gb     Device  0: (UUID: MIG-cccc-10)
  MIG 1g.18gb     Device  1: (UUID: MIG-dddd-11)
GPU 2: NVIDIA H200 (UUID: GPU-eeee-2)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a driver; the folder of its programs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "_own", None)
    monkeypatch.setattr(gpus, "_visible_before", None)
    gpus._of_driver.cache_clear()
    return tmp_path / "bin"


def driver(programs: Path, says: str, status: int = 0) -> None:
    program = programs / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{says}EOF\nexit {status}\n")
    program.chmod(0o755)
    gpus._of_driver.cache_clear()


@pytest.mark.parametrize(
    ("visible", "named"),
    [
        (None, ["GPU-aaaa-0", "MIG-cccc-10", "MIG-dddd-11", "GPU-eeee-2"]),
        ("", []),
        ("2,0", ["GPU-eeee-2", "GPU-aaaa-0"]),
        ("1", ["MIG-cccc-10", "MIG-dddd-11"]),
        ("GPU-eeee-2, MIG-dddd-11", ["GPU-eeee-2", "MIG-dddd-11"]),
        ("0,-1,2", ["GPU-aaaa-0"]),
        ("NoDevFiles", []),
    ],
)
def test_a_gpu_has_one_name_whoever_names_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, named: list[str]
) -> None:
    driver(machine, LISTED)
    if visible is not None:
        monkeypatch.setenv(gpus.VISIBLE, visible)
    assert gpus.listed() == named


def test_a_machine_without_gpus_lets_everybody_compute_at_once(machine: Path) -> None:
    assert gpus.listed() == []
    with gpus.taken(1) as one, gpus.taken(8) as eight, gpus.of_this_process():
        assert (list(one), list(eight)) == ([], [])
    driver(machine, "No devices were found\n", status=6)
    assert gpus.listed() == []


def test_no_two_have_the_same_one_and_who_needs_several_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1,2,3")
    there, most, guard = Counter[str](), Counter[str](), threading.Lock()
    had: list[int] = []

    def compute(count: int) -> None:
        with gpus.taken(count) as own:
            with guard:
                there.update(own)
                most.update({"at once": 0})
                most["at once"] = max(most["at once"], there.total())
                assert max(there.values()) == 1
                had.append(len(set(own)))
            time.sleep(0.05)
            with guard:
                there.subtract(own)

    threads = [threading.Thread(target=compute, args=(count,)) for count in (1, 3, 1, 2, 4, 1, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(had) == [1, 1, 1, 1, 2, 2, 3, 4]
    assert most["at once"] == 4, "all are at work"


def test_more_than_there_are_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    with pytest.raises(ValueError, match="3 GPUs are asked for and 2 are here: 0, 1"), gpus.taken(3):
        pass


def _hold(folder: str, told: Any) -> None:
    os.environ |= {"XDG_STATE_HOME": folder, gpus.VISIBLE: "0"}
    with gpus.of_this_process():
        told.send(os.environ[gpus.VISIBLE])
        time.sleep(60)


def test_a_killed_process_leaves_its_gpu_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0")
    context = multiprocessing.get_context("spawn")
    told, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_hold, args=(str(tmp_path / "state"), theirs), daemon=True)
    process.start()
    assert told.recv() == "0"
    got = threading.Event()

    def wait() -> None:
        with gpus.taken(1):
            got.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not got.wait(0.5)
    process.kill()
    assert got.wait(10)


def test_a_process_computes_on_one_gpu_as_long_as_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1,2")
    with gpus.taken(1), gpus.of_this_process():
        assert os.environ[gpus.VISIBLE] == "1"
    with gpus.of_this_process():
        assert os.environ[gpus.VISIBLE] == "1", "torch has looked by then"
    assert gpus.listed() == ["0", "1", "2"], "what it starts may take any"
    with gpus.taken(3) as every:
        assert list(every) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("nift_training.train", "--base", "b"), 1),
        (("nift_training.train", "--devices", "4", "--zero", "3"), 4),
        (("nift_training.train", "--devices", "8", "--hostfile", "nodes"), 0),
        (("nift_training.train", "--device", "cpu"), 0),
        (("nift_training.evaluate", "ifeval"), 1),
        (("nift_training.evaluate", "ifeval", "--server", "http://127.0.0.1:8000"), 0),
        (("nift_training.merge", "--base", "b"), 0),
    ],
)
def test_a_verb_takes_as_many_as_it_computes_on(arguments: Sequence[str], count: int) -> None:
    assert computing_on([sys.executable, "-m", *arguments]) == count


class _Says(Processes):
    """Starts a program that says what it sees in place of a verb."""

    said: str = ""

    def _status(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        program = [sys.executable, "-c", f"import os; print(os.environ.get({gpus.VISIBLE!r}))"]
        self.said = subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout.strip()
        return 0


def test_a_verb_sees_its_own_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1,2")
    says, said = _Says(), list[str]()

    @dg.asset
    def computed(context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  (Dagster reads annotations)
        for command in (("nift_training.merge",), ("nift_training.train", "--devices", "2")):
            done = says.run(context=context, command=[sys.executable, "-m", *command])
            said.append(says.said)
        return done.get_materialize_result()

    with gpus.taken(1), dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([computed], instance=instance).success
    assert said == ["0,1,2", "1,2"]


def test_a_new_instance_runs_as_many_steps_that_compute_as_there_are_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1,2")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    settings.dagster_home("demo")
    with dg.DagsterInstance.get() as instance:
        assert instance.event_log_storage.get_concurrency_info("gpu").slot_count == 3
