"""Tables in a terminal: what stands in one column begins or ends at one place."""

from __future__ import annotations

from dagster_project.command_line.text_table import aligned, table


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
