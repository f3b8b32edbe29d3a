"""`nift reviews`: what people have said, counted and whole, and bad input in one line."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import polars as pl
import pytest

from nift_assets import reviews
from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.conftest import nift_here
from tests.reviews.test_reviews import compared, pair


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path), study="demo")


def said(store: Store, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "NIFT_STUDY": "demo", "NIFT_WAREHOUSE": store.root}
    ended = nift_here("reviews", *arguments, environment=environment)
    return ended.returncode, ended.stdout + ended.stderr


def test_rows_are_counted_by_who_said_what_of_them_and_older_texts_are_told(store: Store) -> None:
    assert said(store) == (0, "Nobody has reviewed anything of 'demo' yet; open /study/look of `nift ui`.\n")
    texts = {"first_half": "The ferry left", "completion": " without its horn."}
    for table, key, row in (
        ("halves", None, {"document_id": "d1", "first_half": texts["first_half"]}),
        ("completions", "echo", {"document_id": "d1", "teacher": "echo", "completion": texts["completion"]}),
    ):
        frame = pl.DataFrame([row])
        store.write(table, key, frame, version_of(frame, "made by a test"))
    reviews.append(
        store, pair(verdict="drop", reason="r"), pair(), pair("Bob", completion=" with it."), pair("Bob", "d9")
    )
    reviews.append(store, compared("tie", "zephyr", "alpaca"))
    status, printed = said(store)
    lines = [line.split() for line in printed.splitlines()]
    assert status == 0
    assert lines[0] == ["reviewer", "on", "rows", "keep", "drop", "unsure", "a", "b", "tie", "older", "last"]
    assert [line[:-2] for line in lines[2:]] == [
        ["Ann", "pairs", "of", "echo", "1", "1", "0"],
        ["Bob", "pairs", "of", "echo", "2", "2", "2"],
        ["Ann", "mt_bench", "1", "1", "1"],
    ]


def test_every_verdict_is_written_whole_as_csv_and_as_json(store: Store) -> None:
    reason = 'a "list",\nof=things | ‮right to left'
    kept = reviews.append(
        store, pair(verdict="drop", reason=reason), pair("=SUM(1)"), compared("left", "zephyr", "alpaca")
    )
    as_json = json.loads(said(store, "--json")[1])
    as_csv = list(csv.DictReader(io.StringIO(said(store, "--csv")[1])))
    for rows in (as_json, as_csv):
        assert [row["review"] for row in rows] == [review.id for review in kept]
        assert rows[0]["reason"] == reason
    assert as_json[2]["verdict"] == "b"
    assert as_json[0]["reviewed_at"].startswith(kept[0].at[:19])


def test_what_cannot_be_shown_is_refused_in_one_line(store: Store) -> None:
    reviews.append(store, pair())
    status, line = said(store, "--csv", "--json")
    assert (status, line) == (1, "error: --csv and --json are two ways to write the same; give one of them\n")
    with reviews.path(store).open("a") as file:
        file.write("{}\n")
    status, line = said(store)
    assert status == 1
    assert line.startswith(f"error: {reviews.path(store)} line 2 is not what a review has written there; put the file")
    assert line.count("\n") == 1
