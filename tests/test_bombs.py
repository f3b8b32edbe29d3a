"""A pickle planted wherever the demo has stored something is never opened, by whichever command (X4)."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.conftest import Demo, nift, nift_here
from tests.counting import Counts

LOOKING = (["plan"], ["coverage"], ["ledger"], ["query", "from demo.halves limit 1"], ["docs", "--out", os.devnull])
# Where Dagster's own IO manager would look for what a step has handed on.
OWN_PLACES = ("storage/halves", "storage/completions/echo", "storage/raw_sample", "schedules/tick", "cursor.pickle")


def bomb(witness: Path) -> bytes:
    """The oldest kind of pickle, which every loader of pickles takes; it is a line of text as well."""
    return b"cos\nsystem\n(S'touch " + os.fsencode(witness) + b"'\ntR."


def kinds(demo: Demo) -> Mapping[str, list[Path]]:
    """The files of a warehouse and an instance by what they are: their folder below the study, and how they end."""
    found: dict[str, list[Path]] = {}
    for root in (demo.warehouse, demo.home):
        for file in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
            place = file.relative_to(root).parts
            kind = "/".join([root.name, *place[: 2 if root == demo.warehouse else 1][:-1], file.suffix or file.name])
            found.setdefault(kind, []).append(file)
    return found


def planted(files: list[Path], charge: bytes) -> Iterator[None]:
    kept = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(charge)
    yield
    for file, content in kept.items():
        file.write_bytes(content)


def in_every_cell(database: Path, charge: bytes) -> int:
    """The number of cells of a SQLite database that hold the bomb now: each text and each blob of each row."""
    cells = 0
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(database)) as opened:
        for (table,) in opened.execute("select name from sqlite_master where type = 'table'").fetchall():
            for _, column, kind, *_ in opened.execute(f'pragma table_info("{table}")').fetchall():
                if kind.upper().startswith(("TEXT", "VARCHAR", "BLOB", "JSON")):
                    with suppress(sqlite3.DatabaseError):  # a key of which there may be one
                        cells += opened.execute(f'update or ignore "{table}" set "{column}" = ?', (charge,)).rowcount
        opened.commit()
    return cells


def look(demo: Demo, command: list[str]) -> None:
    """Runs it, however it ends: what is said of a damaged file is tested elsewhere."""
    if command[0] == "run":
        nift(*command, environment=demo.environment())
    else:
        with suppress(Exception):
            nift_here(*command, environment=demo.environment())


def test_the_bomb_goes_off_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    pickle.loads(bomb(tmp_path / "went-off"))
    assert (tmp_path / "went-off").exists()


@pytest.mark.fault("X4")
def test_no_command_opens_a_planted_pickle(demo: Demo, tmp_path: Path, counts: Counts) -> None:
    mine, witness = demo.copy(tmp_path), tmp_path / "went-off"
    files = [file for files in kinds(mine).values() for file in files]
    in_the_way = [mine.home / place for place in OWN_PLACES]
    for place in in_the_way:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bomb(witness))
    for root in (mine.warehouse, mine.home):
        for _ in planted([file for file in files if file.is_relative_to(root)], bomb(witness)):
            for command in LOOKING:
                look(mine, command)
                assert not witness.exists(), (root, command)
    cells = sum(in_every_cell(file, bomb(witness)) for file in files if file.suffix in (".db", ".sqlite"))
    assert cells > 1_000
    for command in LOOKING:
        look(mine, command)
        assert not witness.exists(), command
    counts("X4", f"{len(files) + len(in_the_way)} files and {cells} cells of databases, 0 executions")


@pytest.mark.slow
@pytest.mark.fault("X4")
def test_no_kind_of_file_is_opened_as_a_pickle_by_a_run(demo: Demo, tmp_path: Path, counts: Counts) -> None:
    """One kind after the other, all else being whole, so that a run gets as far as the file."""
    mine, witness = demo.copy(tmp_path), tmp_path / "went-off"
    found = kinds(mine)
    for kind, files in found.items():
        for _ in planted(files, bomb(witness)):
            for command in (*LOOKING, ["run", "funnel"]):
                look(mine, command)
                assert not witness.exists(), (kind, command)
    shutil.rmtree(mine.home / "storage", ignore_errors=True)
    counts("X4", f"{len(found)} kinds of files, one after the other, under {len(LOOKING) + 1} commands: 0 executions")
