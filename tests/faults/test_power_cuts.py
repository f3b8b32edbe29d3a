"""The power goes: of each file there is what was flushed last, and every answer that the ledger had acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from nift_assets.ledger.book import Book
from nift_assets.ledger.tables import answers
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.faults import shim
from tests.ledger.asking import Task
from tests.ledger.fault_server import FaultServer

SOURCE = Path(__file__).with_name("power.c")
# Asks, and says after each commit how many files had been flushed by then and which answers are acknowledged.
ASK = """
import ctypes, json, os, sys
from nift_assets.ledger.book import Book
from tests.ledger.asking import Task
flushes = ctypes.CDLL(os.environ["LD_PRELOAD"]).flushes
flushes.restype = ctypes.c_long
exchange, log = Book.exchange, open(sys.argv[2], "w")

def told(self, session, asker, settled, *rest, **named):
    done = exchange(self, session, asker, settled, *rest, **named)
    keys = [each.key for each in settled if each.state == "answered"]
    print(json.dumps([flushes(), keys]), file=log, flush=True)
    return done

Book.exchange = told
Task(**json.loads(sys.argv[1])).ask()
"""


def after_a_cut(copies: list[Path], flushes: int, folder: Path) -> Path:
    """The ledger as it is found when the power went after so many flushes: a file has its name as soon as it was
    flushed, and is gone or has another one when its folder was."""
    contents: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for copy in copies:
        number, inode, name = copy.name.split(" ", 2)
        if int(number) > flushes:
            break
        if name == ".":
            names = {line.split(" ", 1)[1]: line.split(" ", 1)[0] for line in copy.read_text().splitlines()}
        else:
            contents[inode], names[name] = copy.read_bytes(), inode
    folder.mkdir()
    for name, inode in names.items():
        (folder / name).write_bytes(contents.get(inode, b""))
    return folder / "ledger.sqlite"


@pytest.mark.fault("S5", runs="the ledger: 10 cuts; slow: 50")
@pytest.mark.parametrize("cuts", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_power_cut_loses_no_answer_that_was_acknowledged(cuts: int, tmp_path: Path, counts: Counts) -> None:
    library = shim.build(tmp_path, SOURCE)
    if library is None:
        pytest.skip("needs a C compiler")
    ledger, copies = tmp_path / "there" / "ledger.sqlite", tmp_path / "copies"
    ledger.parent.mkdir()
    copies.mkdir()
    own = {"LD_PRELOAD": str(library), "POWER_FOLDER": str(ledger.parent), "POWER_COPIES": str(copies)}
    with FaultServer(latency=0.005) as server:
        task = Task(ledger=f"sqlite:///{ledger}", server=server.url, count=200, limits={"in_flight": 4})
        command = [sys.executable, "-c", ASK, json.dumps(vars(task)), str(tmp_path / "log")]
        subprocess.run(command, cwd=PROJECT, env=os.environ | own, check=True)
    commits = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    kept = sorted(copies.iterdir())
    assert sum(len(keys) for _, keys in commits) == 200
    first = next(flushes for flushes, keys in commits if keys)
    last = commits[-1][0]
    least = []
    for cut in range(cuts):
        flushes = first + cut * (last - first) // (cuts - 1)
        found = after_a_cut(kept, flushes, tmp_path / str(cut))
        acknowledged = {key for number, keys in commits if number <= flushes for key in keys}
        Book(f"sqlite:///{found}")  # it is opened, and what was under way is known
        engine = sa.create_engine(f"sqlite:///{found}")
        with closing(engine.connect()) as connection:
            there = set(connection.execute(sa.select(answers.c.key)).scalars())
        engine.dispose()
        assert acknowledged <= there, f"{len(acknowledged - there)} of {len(acknowledged)} lost after {flushes} flushes"
        least.append(len(acknowledged))
    assert least[0] < 20
    assert least[-1] == 200
    counts("S5", f"{cuts} power cuts in 200 answers and {last} flushes: 0 of what was acknowledged lost")
