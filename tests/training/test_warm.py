"""Verbs as forks of one process: each ends as it would by itself, and none sees a key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dagster_project.processes import WarmProcesses
from tests.conftest import PROJECT


@pytest.fixture(scope="module")
def processes() -> WarmProcesses:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-canary-4711")
        patch.chdir(PROJECT)
        started = WarmProcesses()
        # One that has died before, which is replaced: each takes its time to import what is heavy.
        started._server = died = subprocess.Popen(
            ["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        died.kill()
        died.communicate()
        assert started._ask(job("pico", "--help")) == 0
        assert server(started).pid != died.pid
    return started


def job(verb: str, *arguments: str) -> dict[str, object]:
    return {"module": f"nift_training.{verb}", "arguments": arguments, "environment": {"PATH": "/usr/bin:/bin"}}


def server(processes: WarmProcesses) -> subprocess.Popen[str]:
    assert processes._server is not None
    return processes._server


def test_one_process_that_replaces_a_killed_one_serves_verbs_that_end_with_their_own_status(
    processes: WarmProcesses, tmp_path: Path
) -> None:
    before = server(processes).pid
    out = str(tmp_path / "pairs.jsonl")
    missing = job("train", "--base", "nowhere", "--base-name", "x", "--data", out, "--out", str(tmp_path / "adapter"))
    assert [processes._ask(missing), processes._ask(job("pico", "--help"))] == [2, 0]
    assert server(processes).pid == before, "one process serves them all"
    assert list(tmp_path.iterdir()) == []


def test_no_verb_sees_a_key_of_the_process_that_asks(processes: WarmProcesses) -> None:
    environment = Path(f"/proc/{server(processes).pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"canary" not in environment
