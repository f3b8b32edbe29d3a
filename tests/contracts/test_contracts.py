"""Every table of the graph has a contract that says what a row is and whose SQL can be run."""

import polars as pl
import pytest

import nift_assets.assets.graph  # noqa: F401  importing it declares all tables
from expectations import contract
from expectations.frames import schema
from expectations.runner import check
from nift_assets.assets.table import STEPS


@pytest.mark.parametrize("table", contract.tables())
def test_a_contract_begins_with_its_grain(table: str) -> None:
    assert contract.load(table).description.startswith("One row per ")


@pytest.mark.parametrize("table", sorted(STEPS))
def test_a_contract_reads_only_its_table_and_the_inputs_of_its_step(table: str) -> None:
    inputs = {name: _empty(name) for name in STEPS[table].inputs}
    broken = [result for result in check(_empty(table), contract.load(table), inputs) if not result.passed]
    assert {result.kind for result in broken} <= {"row_count"}


def _empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=schema(contract.load(table)))
