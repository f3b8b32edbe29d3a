"""Who looks for keys finds them wherever they were written."""

from __future__ import annotations

import gzip
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from nift_assets.store import Store
from nift_assets.table_files import Version
from tests import canaries

KEY = "sk-proj-Canary1_Project-Canary1_Project-Canary1_Project"
TEXT = f"{'A long text of a town with a river and a bridge. ' * 200}The key is {KEY}, and so it goes on."


def a_table(folder: Path) -> None:
    frame = pl.DataFrame({"text": ["so on"] * 500 + [TEXT], "list": [["so", "on"]] * 501})
    Store(root=str(folder), study="demo").write("t", None, frame, Version(data="d", inputs="i"))


def a_list_in_a_table(folder: Path) -> None:
    pl.DataFrame({"list": [["so", "on"]] * 500 + [["x", TEXT]]}).write_parquet(folder / "t.parquet")


def a_footer(folder: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(folder / "t.parquet", metadata={"nift.inputs": TEXT})


def a_database(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "l.sqlite")) as database:
        database.execute("pragma page_size = 512")
        database.execute("create table answers (key text, body blob)")
        # Pieces of 508 bytes: of keys at every place some are cut in two.
        database.execute("insert into answers values ('k', ?)", (b"x" * 480 + KEY.encode() + TEXT.encode()[:40],))
        database.commit()


def a_gzip(folder: Path) -> None:
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(TEXT.encode()))


def a_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", TEXT)


def a_log(folder: Path) -> None:
    (folder / "log").write_text(TEXT)


@pytest.mark.parametrize("written", [a_table, a_list_in_a_table, a_footer, a_database, a_gzip, a_zip, a_log])
def test_a_key_is_found_wherever_it_was_written(written: Callable[[Path], None], tmp_path: Path) -> None:
    written(tmp_path)
    hits, files = canaries.found(tmp_path, {"key": KEY, "another": "sk-never-written-anywhere"})
    assert files >= 1
    assert [hit.split()[0] for hit in hits] == ["key"]
