"""The wheel: all that git has of the packages is in it, and what needs files of the package runs without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PACKAGES = ("nift_assets", "nift_training", "dagster_project", "expectations")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(PROJECT)]
    subprocess.run(command, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_that_git_has_of_the_packages(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=PROJECT, capture_output=True, text=True, check=True)
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == set(tracked.stdout.splitlines())


@pytest.mark.slow
def test_an_installed_wheel_reads_its_files_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which has this one's dependencies and, since a `.pth` file is not followed by
    others, nothing of the checkout."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    (packages,) = home.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(f"{here}\n")
    (tmp_path / "empty").mkdir()
    script = """
import sys
import nift_assets
assert nift_assets.__file__.startswith(sys.prefix), nift_assets.__file__
from dagster_project.command_line import main
main()
"""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("NIFT_", "PYTHON", "DAGSTER"))}

    def nift(*arguments: str) -> str:
        ran = subprocess.run(
            [home / "bin" / "python", "-c", script, *arguments],
            cwd=tmp_path / "empty",
            env=ours,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert "echo" in nift("plan")
    nift("run", "halves")
    assert (tmp_path / "empty" / "warehouse" / "demo" / "halves.parquet").exists()
    assert "66" in nift("query", "select count(*) from demo.halves")
    nift("docs")
    assert (tmp_path / "empty" / "warehouse" / "demo" / "docs.html").stat().st_size > 10_000
