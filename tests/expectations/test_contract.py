"""Contracts load whole or not at all."""

from pathlib import Path

import pytest

from expectations import contract

GOOD = """
table: halves
description: One row per document.
columns:
  - name: document_id
    type: VARCHAR
    description: Which document.
    tests: [not_null, unique]
  - name: cut
    type: BIGINT
    description: Words before the cut.
    tests:
      - between: {min: 1, severity: warn}
  - {name: tags, type: "VARCHAR[]", description: Tags.}
tests:
  - row_count: {min: 1}
  - unique: {columns: [document_id, cut]}
  - expression: {name: cut_is_even, sql: cut % 2 = 0, description: The cut is even.}
unit_tests:
  - name: nothing_in_nothing_out
    given: {raw_sample: []}
    expect: []
"""


def written(folder: Path, text: str) -> contract.Contract:
    (folder / "halves.yml").write_text(text, encoding="utf-8")
    return contract.load("halves", folder)


def test_tests_come_in_the_order_written_after_the_implicit_one(tmp_path: Path) -> None:
    assert [test.name for test in written(tmp_path, GOOD).tests] == [
        "columns_as_declared",
        "document_id_not_null",
        "document_id_unique",
        "cut_between",
        "row_count",
        "document_id_cut_unique",
        "cut_is_even",
    ]


def test_a_test_has_a_severity_and_a_sentence_even_if_none_is_written(tmp_path: Path) -> None:
    tests = {test.name: test for test in written(tmp_path, GOOD).tests}
    assert (tests["cut_between"].severity, tests["row_count"].severity) == ("warn", "error")
    assert tests["cut_between"].description == "`cut` is at least 1."
    assert tests["document_id_cut_unique"].description == "No two rows have the same document_id, cut."
    assert tests["cut_is_even"].description == "The cut is even."


def test_tables_are_the_contracts_that_exist(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    assert contract.tables(tmp_path) == ["halves"]


@pytest.mark.parametrize("table", contract.tables())
def test_every_contract_of_the_project_loads(table: str) -> None:
    assert contract.load(table).table == table


BAD = {
    "unknown_key": ("type: BIGINT", "typ: BIGINT", "column cut: unknown key 'typ'"),
    "unknown_column_test": ("not_null,", "notnull,", "column document_id: unknown test 'notnull'"),
    "unknown_table_test": ("row_count", "rows", "halves.yml: unknown test 'rows'"),
    "column_test_on_the_table": ("- row_count: {min: 1}", "- not_null", "halves.yml: unknown test 'not_null'"),
    "unknown_argument": ("{min: 1, sev", "{minimum: 1, sev", "column cut, test between: unknown key 'minimum'"),
    "no_bound": ("row_count: {min: 1}", "row_count", "test row_count: no bound"),
    "text_for_a_bound": ("row_count: {min: 1}", "row_count: {min: one}", "test row_count: min is 'one'"),
    "unknown_severity": ("severity: warn", "severity: fatal", "test between: unknown severity 'fatal'"),
    "no_table_description": ("description: One row per document.", "", "halves.yml: no description"),
    "no_column_description": ("    description: Words before the cut.\n", "", "column cut: no description"),
    "empty_description": ("Words before the cut.", "''", "column cut: no description"),
    "no_sql": ("sql: cut % 2 = 0, ", "", "test expression: no sql"),
    "no_name": ("name: cut_is_even, ", "", "test expression: no name"),
    "bad_name": ("name: cut_is_even", "name: cut is even", "cannot be called 'cut is even'"),
    "two_tests_of_a_name": ("name: cut_is_even", "name: CUT_between", "2 tests are called 'cut_between'"),
    "two_columns_of_a_name": ("name: tags", "name: cut", "2 columns are called 'cut'"),
    "unknown_type": ("VARCHAR[]", "TEXT[]", "column tags: unknown type 'TEXT[]'"),
    "test_of_another_type": ("not_null,", "between: {min: 1},", "between of a VARCHAR"),
    "unknown_column": ("[document_id, cut]", "[document_id, cuts]", "no column 'cuts'"),
    "two_tests_in_one_entry": ("- row_count: {min: 1}", "- {row_count: , unique: }", "cannot read the test"),
    "another_table": ("table: halves", "table: thirds", "table is 'thirds'"),
    "unit_test_without_expect": ("    expect: []\n", "", "unit test nothing_in_nothing_out: no expect"),
    "unit_test_rows": ("raw_sample: []", "raw_sample: [a]", "the rows of raw_sample are no list of mappings"),
    "not_yaml": ("columns:", "columns: ]", "halves.yml: not YAML"),
    "not_a_mapping": (GOOD, "- halves", "halves.yml: expected a mapping"),
}


@pytest.mark.parametrize(("old", "new", "says"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_line_with_file_place_and_remedy(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=r"^halves\.yml") as raised:
        written(tmp_path, GOOD.replace(old, new))
    assert says in str(raised.value)
    assert "; " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_contract_that_does_not_exist_names_those_that_do(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(ValueError, match=r"thirds\.yml: no such contract.*halves"):
        contract.load("thirds", tmp_path)


def test_a_contract_that_is_like_another_has_its_columns_and_tests_and_none_of_its_unit_tests(tmp_path: Path) -> None:
    pattern = written(tmp_path, GOOD)
    like = "table: thirds\nlike: halves\ndescription: One row per third.\n"
    (tmp_path / "thirds.yml").write_text(like, encoding="utf-8")
    found = contract.load("thirds", tmp_path)
    assert (found.columns, found.tests, found.unit_tests) == (pattern.columns, pattern.tests, ())
    assert (found.table, found.description) == ("thirds", "One row per third.")


@pytest.mark.parametrize(
    ("pattern", "like", "says"),
    [
        (GOOD, "like: quarters", r"thirds.yml: like 'quarters', which is no contract; use one of halves, thirds"),
        (GOOD, "like: [halves]", r"thirds.yml: like \['halves'\], which is no contract"),
        (GOOD, "like: thirds", "thirds.yml: like 'thirds', which is like another itself"),
        (GOOD, "like: halves\ncolumns: [no_such]", "thirds.yml: halves has no column 'no_such' to be like"),
        (GOOD, "like: halves\ncolumns: 5", "thirds.yml: columns is 5; make it a list"),
        ("[]", "like: halves", "halves.yml: expected a mapping"),
        ("table: halves\ndescription: x\ncolumns: [a]", "like: halves", "halves.yml, column 'a': expected a mapping"),
        ("table: halves\nlike: thirds", "like: halves", "thirds.yml: like 'halves', which is like another itself"),
    ],
)
def test_a_contract_that_is_like_nothing_is_refused(pattern: str, like: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "halves.yml").write_text(pattern)
    (tmp_path / "thirds.yml").write_text(f"table: thirds\n{like}\n")
    with pytest.raises(ValueError, match=says):
        contract.load("thirds", tmp_path)


@pytest.mark.parametrize("text", [b"table: \x00", b"table: 2024-13-45", b"table: caf\xe9", b"{"])
def test_a_file_that_is_no_yaml_is_one_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "halves.yml").write_bytes(text)
    with pytest.raises(ValueError, match=r"^halves\.yml: .*; (mend that line|save it as UTF-8)$"):
        contract.load("halves", tmp_path)


def test_a_table_without_a_contract_keeps_that_of_its_kind(tmp_path: Path) -> None:
    pattern = written(tmp_path, GOOD)
    found = contract.load("left_halves", tmp_path)
    assert (found.table, found.columns, found.tests) == ("left_halves", pattern.columns, pattern.tests)
    with pytest.raises(ValueError, match=r"left_thirds.yml: no such contract"):
        contract.load("left_thirds", tmp_path)
