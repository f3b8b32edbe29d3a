"""Whoever reads a table's file while it is made again reads the old table or the whole new one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from expectations.frames import portions
from nift_assets import catalogue
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from tests.counting import Counts

Look = Callable[[], tuple[int, int, int]]  # the smallest and the largest number of a table, and how many rows
ROWS = 4_000  # of two groups, which are read one after the other


def numbered(number: int) -> pl.DataFrame:
    """A table of one number, so often that its length says which."""
    return pl.DataFrame({"number": [number] * (ROWS + number), "text": [f"text {number}"] * (ROWS + number)})


def readers(store: Store) -> dict[str, Look]:
    """The ways in which a table is read by what is made from it, by a plan and by whoever looks what is stale."""

    def of(frame: pl.DataFrame) -> tuple[int, int, int]:
        return frame["number"].min(), frame["number"].max(), frame.height  # type: ignore[return-value]

    def footer() -> tuple[int, int, int]:
        before, rows, after = store.version("t", None), store.rows("t", None), store.version("t", None)
        assert before is not None
        assert after is not None
        assert rows is not None
        between = rows - ROWS  # three looks, in their order
        assert int(before.inputs) <= between <= int(after.inputs)
        return between, between, rows

    def queried() -> tuple[int, int, int]:
        with catalogue.opened(Path(store.root), store.refresh_catalogue) as views:
            asked = views.execute('select min(number), max(number), count(*) from "demo".t').fetchone()
        assert asked is not None
        return asked

    return {
        "whole": lambda: of(store.read("t", None)),
        "a column": lambda: of(store.read("t", None, ["number"])),
        "by portions": lambda: of(pl.concat(portions(store.table("t")))),
        "the footer": footer,
        "a query": queried,
    }


@pytest.mark.fault("S6", runs="the files: 5 readers, 15 swaps; slow: 100")
@pytest.mark.parametrize("swaps", [15, pytest.param(100, marks=pytest.mark.slow)])
def test_five_readers_of_a_file_beside_its_writer_see_the_old_table_or_the_new_one(
    swaps: int, tmp_path: Path, counts: Counts
) -> None:
    store = Store(root=str(tmp_path), study="demo")

    def write(number: int) -> None:
        frame = numbered(number)
        store.write("t", None, frame, Version(data=data_version(frame), inputs=str(number)))

    write(0)
    over, looks, wrong = threading.Event(), Counter[str](), list[str]()

    def read(name: str, look: Look) -> None:
        last = 0
        while not over.is_set():
            try:
                low, high, rows = look()
            except Exception as error:
                wrong.append(f"{name}: {error!r}")
                continue
            looks[name] += 1
            if not last <= low == high == rows - ROWS:
                wrong.append(f"{name}: {low}, {high}, {rows} rows after {last}")
            last = high
            time.sleep(0.001)

    threads = [threading.Thread(target=read, args=reader) for reader in readers(store).items()]
    for thread in threads:
        thread.start()
    number = 0
    # A slow machine asks few queries between so few writes.
    while number < swaps or ((len(looks) < 5 or min(looks.values()) <= 2) and number < 10 * swaps):
        number += 1
        write(number)
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(looks) == 5
    assert min(looks.values()) > 2
    counts("S6", f"5 readers beside {number} swaps: {sum(looks.values())} looks, 0 torn, 0 refused")
