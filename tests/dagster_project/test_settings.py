"""The folder of the Dagster instance is whole however many commands make it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_project import settings
from tests.conftest import PROJECT

# Forks of a process that has imported Dagster, which begin at the same moment.
OPEN = """
import os, sys
import dagster as dg
from dagster_project.settings import dagster_home
held, begin = os.pipe()
children = []
for _ in range(int(sys.argv[1])):
    if child := os.fork():
        children.append(child)
        continue
    os.close(begin)
    os.read(held, 1)
    dagster_home("demo")
    with dg.DagsterInstance.get() as instance:
        print(instance.get_runs_count(), len(instance.all_instigator_state()), len(instance.all_asset_keys()))
    sys.stdout.flush()
    os._exit(0)
os.close(begin)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.parametrize("together", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_a_new_instance_is_opened_by_several_commands_at_once(together: int, tmp_path: Path) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", OPEN, str(together)]
    ran = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "0 0 0\n" * together), ran.stderr
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
