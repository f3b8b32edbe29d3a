"""The folder of the Dagster instance is whole however many commands make it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_project import settings
from tests.conftest import PROJECT

OPEN = """
import sys
import dagster as dg
from dagster_project.settings import dagster_home
print("ready", flush=True)
sys.stdin.readline()
home = dagster_home("demo")
with dg.DagsterInstance.get() as instance:
    print(instance.get_runs_count(), len(instance.all_instigator_state()), len(instance.all_asset_keys()))
"""


@pytest.mark.parametrize("together", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_a_new_instance_is_opened_by_several_commands_at_once(together: int, tmp_path: Path) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "home")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(together)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in started]
    assert [out for out, _ in said] == ["0 0 0\n"] * together, said
    assert not (tmp_path / "home" / settings.MAKING).exists()


def test_an_instance_that_a_killed_command_had_begun_is_made_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / settings.MAKING).touch()
    (home / "dagster.yaml").write_text("run_sto")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert settings.dagster_home("demo") == home
    assert "run_sto" not in (home / "dagster.yaml").read_text().split()
    assert not (home / settings.MAKING).exists()
