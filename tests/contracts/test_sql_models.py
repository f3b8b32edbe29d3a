"""Every SQL model makes of the rows given in its contract exactly the rows expected there."""

from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest

from expectations import contract
from expectations.contract import UnitTest
from expectations.frames import conform, given_frames, schema
from nift_assets import filters, sql, studies

CONTRACTS = {table: contract.load(table) for table in contract.tables()}
UNIT_TESTS = [
    pytest.param(table, unit_test, id=f"{table}-{unit_test.name}")
    for table, promised in CONTRACTS.items()
    for unit_test in promised.unit_tests
]


FILTERS = [f"{name}{filters.TABLE_SUFFIX}" for name in filters.names()]


@pytest.mark.parametrize("model", [*sql.names(), *(table for table in FILTERS if filters.sql_file(table).exists())])
def test_a_model_has_unit_tests(model: str) -> None:
    assert CONTRACTS[model].unit_tests


@pytest.mark.parametrize(("table", "unit_test"), UNIT_TESTS)
def test_a_model_makes_the_rows_expected(table: str, unit_test: UnitTest) -> None:
    model = sql.compile(table)
    frames = _frames(unit_test)
    assert frames.keys() == {*model.refs, *(f"{sql.STUDY_PREFIX}{rows}" for rows in model.studies)}
    made = conform(sql.run(model, frames, unit_test.partition), CONTRACTS[table])
    assert made.schema == schema(CONTRACTS[table])
    assert made.height == len(unit_test.expect)
    columns = [name for name in made.columns if any(name in row for row in unit_test.expect)]
    assert made.select(columns).rows(named=True) == [dict.fromkeys(columns) | row for row in unit_test.expect]


def _frames(unit_test: UnitTest) -> dict[str, pl.DataFrame]:
    """The given rows as frames; those of the study have the columns of its rows, the others their contract's."""
    of_study = {table: rows for table, rows in unit_test.given.items() if table.startswith(sql.STUDY_PREFIX)}
    of_graph = {table: rows for table, rows in unit_test.given.items() if table not in of_study}
    frames = given_frames(replace(unit_test, given=of_graph), CONTRACTS)
    for table, rows in of_study.items():
        columns = sql.study_rows(studies.load("demo"), table.removeprefix(sql.STUDY_PREFIX)).schema
        assert all(row.keys() <= columns.keys() for row in rows), f"{table} has only {', '.join(columns)}"
        frames[table] = pl.DataFrame(rows, schema=columns, orient="row")
    return frames


@pytest.mark.parametrize(
    "reaching",
    [
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "copy (select 1) to '{file}'",
        "select * from frame",
    ],
)
def test_a_model_reaches_nothing_but_the_frames_it_is_given(reaching: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("secret\n1\n")
    frame = pl.DataFrame({"secret": [1]})
    model = sql.SqlModel("reaching", reaching.format(file=tmp_path / "rows.csv"), {}, (), ())
    with pytest.raises(duckdb.Error):
        sql.run(model, {"given": frame}, None)
    assert (tmp_path / "rows.csv").read_text() == "secret\n1\n"
