"""What becomes of any command whose output nobody reads, or for which there is no room."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import click
import polars as pl
import pytest

from dagster_project.command_line import main
from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.conftest import NIFT, PROJECT

FULL = Path("/dev/full")
ROWS = pl.DataFrame({name: ["a", "b"] for name in ("document_id", "first_half", "second_half")})
LOST = "error: the standard output cannot be written to (No space left on device); it is not complete\n"


@pytest.fixture(scope="module")
def warehouses(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two warehouses that differ in a row."""
    roots = [str(tmp_path_factory.mktemp(name)) for name in ("before", "after")]
    for root, rows in zip(roots, (ROWS, ROWS.head(1)), strict=True):
        Store(root=root, study="demo").write("halves", None, rows, version_of(rows, inputs="made here"))
    return roots


def commands(warehouses: list[str]) -> Iterator[list[str]]:
    """Every command that ends by itself in less than a second: what it says of itself, and what it prints."""
    yield from (["--version"], ["--help"], ["studies"], ["studies", "--json"], ["tables"], ["teachers"], ["ledger"])
    yield from (["coverage"], ["coverage", "--json"], ["plan"], ["reviews"], ["diff", warehouses[0]])
    yield from (["query", "from halves", *form] for form in ([], ["--json"], ["--jsonl"]))
    # More than stands in a buffer, which is another way through the streams of Python.
    yield ["query", "select repeat('text ', 1000) as text from range(50000)"]
    yield from ([name, "--help"] for name in main.list_commands(click.Context(main)))


def ended(arguments: list[str], output: int) -> tuple[object, str]:
    """How a command ends whose output is a descriptor, and what it says of that."""
    error = io.StringIO()
    file = os.fdopen(output, "w")
    with redirect_stdout(file), redirect_stderr(error), pytest.raises(SystemExit) as end:
        main(arguments)
    file.close()  # nothing is left in it that could not be written
    return end.value.code, error.getvalue()


@contextmanager
def environment(warehouse: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("NIFT_")]:
            patch.delenv(name)
        patch.setenv("NIFT_WAREHOUSE", warehouse)
        patch.setenv("DAGSTER_HOME", f"{warehouse}/home")
        patch.chdir(PROJECT)
        yield


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_an_output_that_is_full_is_one_line_from_every_command(warehouses: list[str]) -> None:
    with environment(warehouses[1]):
        for arguments in commands(warehouses):
            assert ended(arguments, os.open(FULL, os.O_WRONLY)) == (1, LOST), arguments


def test_a_pipe_that_nobody_reads_ends_every_command_without_a_word(warehouses: list[str]) -> None:
    with environment(warehouses[1]):
        for arguments in commands(warehouses):
            reading, writing = os.pipe()
            os.close(reading)
            assert ended(arguments, writing) == (1, ""), arguments


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("redirected", "ends"), [(f">{FULL}", (1, LOST)), (">&-", (0, "")), ("<&- >&- 2>&-", (0, "")), ("| true", (0, ""))]
)
def test_a_process_ends_as_its_command_did(redirected: str, ends: tuple[int, str], warehouses: list[str]) -> None:
    """Python writes once more what is in a buffer as it ends."""
    with environment(warehouses[1]):
        shell = ["/bin/sh", "-c", f'"$0" query "from demo.halves" {redirected}', str(NIFT)]
        ran = subprocess.run(shell, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, ran.stderr) == ends
