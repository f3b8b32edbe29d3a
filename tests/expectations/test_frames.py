"""Frames of the declared shape."""

import polars as pl
import pytest

from expectations.contract import Column, Contract, UnitTest
from expectations.frames import conform, given_frames, schema

TYPES = {
    "id": "VARCHAR",
    "words": "BIGINT",
    "share": "DOUBLE",
    "kept": "BOOLEAN",
    "tags": "VARCHAR[]",
    "at": "TIMESTAMP",
}
TABLE = Contract(
    table="documents",
    description="One row per document.",
    columns=tuple(Column(name=name, type=type_, description=name) for name, type_ in TYPES.items()),
    tests=(),
    unit_tests=(),
)


def test_the_schema_makes_the_empty_table() -> None:
    empty = pl.DataFrame(schema=schema(TABLE))
    assert empty.columns == list(TYPES)
    assert conform(empty, TABLE).equals(empty)


def test_conform_orders_and_widens_without_loss() -> None:
    frame = pl.DataFrame(
        {
            "tags": pl.Series([[], []], dtype=pl.List(pl.Null)),
            "words": pl.Series([2**32 - 1, None], dtype=pl.UInt32),
            "share": pl.Series([0.5, None], dtype=pl.Float32),
            "id": ["a", "b"],
            "kept": [None, None],
            "at": pl.Series([None, None], dtype=pl.Datetime("us")),
        }
    )
    conformed = conform(frame, TABLE)
    assert dict(conformed.schema) == schema(TABLE)
    assert conformed.columns == list(TYPES)
    assert conformed["words"].to_list() == [2**32 - 1, None]


def test_conform_leaves_what_would_lose_or_lie_to_the_check() -> None:
    frame = pl.DataFrame({"extra": [1], "words": [1.5], "share": [1], "id": [7]})
    conformed = conform(frame, TABLE)
    assert conformed.columns == ["id", "words", "share", "extra"]
    assert conformed.schema == {"id": pl.Int64, "words": pl.Float64, "share": pl.Int64, "extra": pl.Int64}


def test_given_rows_are_typed_by_the_contract_of_their_table() -> None:
    unit_test = UnitTest(name="one", partition=None, given={"documents": ({"id": "a"}, {"words": 3})}, expect=())
    frame = given_frames(unit_test, {"documents": TABLE})["documents"]
    assert dict(frame.schema) == schema(TABLE)
    assert frame.select("id", "words").rows() == [("a", None), (None, 3)]


def test_no_given_rows_are_an_empty_table() -> None:
    unit_test = UnitTest(name="none", partition=None, given={"documents": ()}, expect=())
    assert given_frames(unit_test, {"documents": TABLE})["documents"].equals(pl.DataFrame(schema=schema(TABLE)))


def test_a_given_column_or_table_nobody_declared_is_refused() -> None:
    unit_test = UnitTest(name="one", partition=None, given={"documents": ({"idd": "a"},)}, expect=())
    with pytest.raises(ValueError, match="documents has no column 'idd'"):
        given_frames(unit_test, {"documents": TABLE})
    with pytest.raises(ValueError, match="documents has no contract"):
        given_frames(unit_test, {})
