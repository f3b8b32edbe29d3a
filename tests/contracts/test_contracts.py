"""Every table of the graph has a contract that says what a row is and whose SQL can be run."""

import re

import polars as pl
import pytest

import nift_assets.graph  # noqa: F401  importing it declares all tables
from expectations import contract
from expectations.frames import schema
from expectations.runner import check
from nift_assets import sql, studies
from nift_assets.assets.sql_models import removals, results_of
from tests.demo import GRAPH


@pytest.mark.parametrize("table", contract.tables())
def test_a_contract_begins_with_its_grain(table: str) -> None:
    assert contract.load(table).description.startswith("One row per ")


@pytest.mark.parametrize("table", contract.tables())
def test_a_column_is_never_null_or_says_when_it_is(table: str) -> None:
    promised = contract.load(table)
    held = {test.column for test in promised.tests if test.kind == "not_null"}
    # A comparison of the whole table does not hold for a null either.
    compared = " ".join(str(test.arguments.get("sql")) for test in promised.tests if test.severity == "error")
    described = {column.name: column.description for column in promised.columns if column.name not in held}
    silent = [
        name
        for name, said in described.items()
        if not re.search(r"\bnull\b|\bwhere\b", said, re.IGNORECASE)
        and not re.search(rf"\b{name} is (not )?distinct from|using \(.*{name}", compared)
    ]
    assert silent == []


@pytest.mark.parametrize("table", contract.tables())
def test_a_row_has_a_key(table: str) -> None:
    assert [test for test in contract.load(table).tests if test.kind == "unique"]


@pytest.mark.parametrize("table", sorted(GRAPH.tables))
def test_a_contract_reads_only_its_table_the_inputs_of_its_step_and_the_study(table: str) -> None:
    promised = contract.load(table)
    inputs = {name: _empty(name) for name in GRAPH.tables[table].inputs}
    named = (str(test.arguments.get(argument, "")) for test in promised.tests for argument in ("sql", "to"))
    rows = sql.named_study_rows(studies.load("demo"), named)
    given = {
        **inputs,
        **{name: frame.clear() for name, frame in rows.items()},
        **removals(GRAPH.study, inputs),
        **results_of(GRAPH.study, inputs),
    }
    broken = [result for result in check(_empty(table), promised, given) if not result.passed]
    assert {result.kind for result in broken} <= {"row_count"}


def _empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=schema(contract.load(table)))
