"""Tables in a terminal: what stands in one column begins or ends at one place."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections import Counter
from pathlib import Path

import pytest
import wcwidth
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.command_line import plan_table
from dagster_project.command_line.text_table import aligned, table
from nift_assets.ledger.report import Account, Report
from tests.conftest import NIFT, PROJECT


def test_a_table_has_a_rule_under_its_header_and_no_blanks_at_the_end_of_a_line() -> None:
    assert table(["model", "score"], [["a", "7.25 *"], ["longer", "-"]]).split("\n") == [
        "model   score",
        "------  ------",
        "a       7.25 *",
        "longer  -",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["model", "score"], []) == "model  score\n-----  -----"


def test_numbers_end_at_one_place_behind_the_names() -> None:
    assert aligned([["who", "USD"], ["a", "1,234.00"], ["bb", "5"]], left=1) == [
        "who       USD",
        "a    1,234.00",
        "bb          5",
    ]


def word() -> st.SearchStrategy[str]:
    return st.text("abcdef漢字é_-./", min_size=1, max_size=14)


def cell() -> st.SearchStrategy[str]:
    return st.lists(word(), max_size=6).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    count = draw(st.integers(1, 5))
    row = st.lists(cell(), min_size=count, max_size=count)
    return draw(st.lists(word(), min_size=count, max_size=count, unique=True)), draw(st.lists(row, max_size=4))


@given(tables(), st.integers(1, 120), st.booleans())
def test_no_word_of_a_table_is_lost_or_cut_but_of_prose_and_it_is_no_wider_than_its_words(
    made: tuple[list[str], list[list[str]]], width: int, has_prose: bool
) -> None:
    header, rows = made
    prose = header[-1:] if has_prose else []
    drawn = table(header, rows, width, prose=prose)
    kept = [cell for row in rows for cell in (row[:-1] if has_prose else row)]
    assert Counter(word for cell in kept for word in cell.split()) <= Counter(drawn.replace("\n", " ").split())
    longest = max(wcwidth.width(word) for cells in [header, *rows] for cell in cells for word in cell.split(" "))
    names = max(map(wcwidth.width, header))
    assert max(map(wcwidth.width, drawn.splitlines()), default=0) <= max(width, names + 2 + max(longest, 16))
    whole = table(header, rows)
    if max(map(wcwidth.width, whole.splitlines())) <= width:
        assert drawn == whole


def test_prose_gives_way_before_a_name_goes_on_in_the_next_line() -> None:
    rows = [["a-name", "one, two", "One row per document of a long description"]]
    assert table(["table", "filters", "what"], rows, 40, prose=["what"]).splitlines() == [
        "table   filters   what",
        "------  --------  ----------------------",
        "a-name  one, two  One row per document…",
    ]
    assert table(["table", "filters", "what"], rows, 33, prose=["what"]).splitlines() == [
        "table   filters  what",
        "------  -------  ----------------",
        "a-name  one,     One row per doc…",
        "        two",
    ]
    assert table(["table", "filters", "what"], rows, 28, prose=["what"]).splitlines() == [
        "table    a-name",
        "filters  one, two",
        "what     One row per",
        "         document of a long",
        "         description",
    ]


def test_wide_letters_stand_in_columns_too() -> None:
    assert table(["who", "n"], [["漢字", "1"], ["ab", "2"]]).splitlines() == [
        "who   n",
        "----  -",
        "漢字  1",
        "ab    2",
    ]


def test_a_pipe_gets_tables_whole_and_a_terminal_as_wide_as_it_is(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_") and name != "COLUMNS"}
    environment = {**kept, "NIFT_WAREHOUSE": str(tmp_path)}
    # A shell may hand on how wide its terminal is, which is no width of a pipe.
    piped = subprocess.run(
        [NIFT, "tables"], env={**environment, "COLUMNS": "60"}, cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert "…" not in piped
    assert max(map(len, piped.splitlines())) > 200
    for width in (60, 100):
        lines = on_a_terminal(["tables"], environment, width)
        assert max(map(len, lines)) <= width
        assert "uppercase_start_removals" in " ".join(lines).split()


def on_a_terminal(arguments: list[str], environment: dict[str, str], width: int) -> list[str]:
    """What a command shows on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with subprocess.Popen([NIFT, *arguments], env=environment, stdout=theirs, cwd=PROJECT):
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            pass  # the other end is closed
    os.close(ours)
    return shown.decode().splitlines()


@pytest.mark.parametrize("width", [None, 50])
def test_the_ledger_has_each_number_with_its_name_where_they_cannot_stand_side_by_side(width: int | None) -> None:
    account = Account(study="demo", who="a-teacher-of-a-long-name", states={"answered": 3}, sent=1234, spent=10**10)
    report = Report(accounts=(account,), totals={"demo": (10**10, 0)}, lost=(), batches=())
    first, second, *_ = plan_table.render_ledger(report, {}, width).splitlines()
    if width is None:
        assert first.split() == ["sent", "tokens", "in", "tokens", "out", "spent", "USD", "reserved"]
    else:
        assert first == "demo/a-teacher-of-a-long-name"
        assert second == "    sent 1,234, tokens in 0, tokens out 0, spent USD 10.00, reserved 0.00"
