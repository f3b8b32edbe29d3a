"""The commands that list, the names a shell completes, and what is said of a name that there is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import click
import pytest

from dagster_project.command_line.terminal import MODULES, main
from nift_assets.near_names import near
from nift_assets.studies.demo import STUDY
from tests.conftest import NIFT, PROJECT, nift_here


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("here")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return ours | {"NIFT_WAREHOUSE": str(folder / "warehouse"), "XDG_CACHE_HOME": str(folder / "cache")}


def test_every_module_has_the_commands_it_is_imported_for() -> None:
    for module, names in MODULES.items():
        import_module(f"dagster_project.command_line.{module}")
        assert set(names) <= main.commands.keys(), module
    assert main.commands.keys() == set(main.list_commands(click.Context(main)))


def test_lists_have_what_the_study_has_whether_or_not_anything_is_made(environment: dict[str, str]) -> None:
    assert nift_here("--version", environment=environment).stdout == f"nift {metadata.version('nift')}\n"
    studies = json.loads(nift_here("studies", "--json", environment=environment).stdout)
    assert {row["study"]: row["teachers"] for row in studies}["demo"] == len(STUDY.teachers)
    tables = json.loads(nift_here("tables", "--json", environment=environment).stdout)
    assert {row["table"]: row["made"] for row in tables}["completions"] == "0 of 3"
    parts = json.loads(nift_here("tables", "completions", "--json", environment=environment).stdout)
    assert [row["partition"] for row in parts] == [teacher.name for teacher in STUDY.teachers]
    teachers = nift_here("teachers", environment=environment).stdout
    assert [teacher.name for teacher in STUDY.teachers if teacher.name not in teachers] == []
    for place in (["--study", "paper", "teachers"], ["teachers", "--study", "paper"]):
        assert "gpt-4-0125-preview" in nift_here(*place, environment=environment).stdout


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["tables", "completion"], "did you mean 'completions'"),
        (["teachers", "--study", "papr"], "did you mean 'paper'?"),
        (["cuverage"], "Did you mean 'coverage'?"),
        (["coverage", "--jsom"], "Did you mean '--json'?"),
        (["coverage", "--table", "tabel_1"], "did you mean 'table_1'"),
        (["publish", f"{STUDY.publications[0].name}x"], f"did you mean '{STUDY.publications[0].name}'"),
    ],
)
def test_a_name_that_there_is_not_is_answered_with_those_near_it(
    asked: list[str], says: str, environment: dict[str, str], tmp_path: Path
) -> None:
    ran = nift_here(*asked, environment={**environment, "DAGSTER_HOME": str(tmp_path / "home")})
    assert ran.returncode
    assert says in ran.stderr
    assert near("nothing-like-it", ["demo", "paper"]) == ""


def test_a_shell_completes_real_names_and_the_second_time_imports_nothing_heavy(environment: dict[str, str]) -> None:
    def completed(*words: str) -> list[str]:
        asked = {"_NIFT_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        ran = subprocess.run(
            [sys.executable, "-X", "importtime", NIFT],
            env={**environment, **asked},
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        imported.append(set(re.findall(r"\| +(\w+)$", ran.stderr, re.M)))
        return [line.split(",")[1] for line in ran.stdout.splitlines()]

    imported: list[set[str]] = []
    assert completed("nift", "run", "completi") == ["completion_rejects", "completions"]
    assert completed("nift", "run", "completions", "--partition", "") == ["echo", "local", "original"]
    assert completed("nift", "run", "lora_adapters", "--partition", "pico.l") == ["pico.local"]
    assert completed("nift", "tables", "--study", "pap") == ["paper"]
    for names in imported[1:]:
        assert names & {"dagster", "polars", "duckdb", "sqlalchemy", "numpy"} == set()
