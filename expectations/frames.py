"""Frames of the shape a contract declares: its types, a frame in its order, the rows of a unit test."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from expectations.contract import Contract, UnitTest

Table = pl.DataFrame | Path
"""The rows of a table: in memory, or in the Parquet file they lie in, which may be larger than memory."""


@dataclass(frozen=True)
class Stacked:
    """Tables below each other, of which only these columns are of interest."""

    tables: tuple[Table, ...]
    columns: Mapping[str, pl.DataType]


# Types whose every value is also a value of the declared type. Other changes of type are for the author to write.
_WIDENS: dict[pl.DataType | DataTypeClass, set[pl.DataType | DataTypeClass]] = {
    pl.Int64(): {pl.Int8(), pl.Int16(), pl.Int32(), pl.UInt8(), pl.UInt16(), pl.UInt32()},
    pl.Int32(): {pl.Int8(), pl.Int16(), pl.UInt8(), pl.UInt16()},
    pl.Float64(): {pl.Float32()},
}


def portions(table: Table) -> Iterator[pl.DataFrame]:
    """The rows a part at a time, in their order: of a file one row group, of a frame all."""
    if isinstance(table, pl.DataFrame):
        yield table
        return
    from pyarrow import parquet

    with parquet.ParquetFile(table) as file:
        for group in range(file.num_row_groups):
            # Into the view types of a frame's own, so that what is made of it can be views of it as well.
            yield pl.DataFrame(file.read_row_group(group, use_threads=False))


def in_groups(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of so many each, the last with what is left; where there is no row, a frame without."""
    waiting: list[pl.DataFrame] = []
    held, is_empty = 0, True
    for frame in frames:
        waiting.append(frame)
        held += frame.height
        while held >= rows:
            whole = pl.concat(waiting)
            yield whole.head(rows)
            waiting, held, is_empty = [whole.slice(rows)], held - rows, False
    if waiting and (is_empty or held):
        yield pl.concat(waiting)


class Rows(AbstractContextManager["Rows"]):
    """The rows of a table by their numbers, of a file without the others in memory."""

    def __init__(self, table: Table) -> None:
        from pyarrow import parquet

        self._frame = table if isinstance(table, pl.DataFrame) else None
        self._file: Any = parquet.ParquetFile(table) if isinstance(table, Path) else None
        counts = [table.height] if isinstance(table, pl.DataFrame) else _group_heights(self._file)
        self._starts = list(accumulate(counts, initial=0))
        self._last: tuple[int, pl.DataFrame] | None = None

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def height(self) -> int:
        return self._starts[-1]

    @property
    def columns(self) -> list[str]:
        return self._frame.columns if self._frame is not None else list(self._file.schema_arrow.names)

    def select(self, *names: str) -> pl.DataFrame:
        """Some columns, of all rows."""
        if self._frame is not None:
            return self._frame.select(names)
        return pl.DataFrame(self._file.read(columns=list(names), use_threads=False)).select(names)

    def between(self, start: int, stop: int) -> pl.DataFrame:
        """The rows from one number to before another."""
        if self._frame is not None:
            return self._frame.slice(start, max(0, stop - start))
        parts = [
            self._group(group).slice(max(0, start - begin), min(stop, end) - max(start, begin))
            for group, (begin, end) in enumerate(pairwise(self._starts))
            if begin < stop and start < end
        ]
        return pl.concat(parts) if parts else pl.DataFrame(self._file.schema_arrow.empty_table())

    def _group(self, group: int) -> pl.DataFrame:
        # The next rows begin where these end, so that the same group is read again.
        if self._last is None or self._last[0] != group:
            self._last = group, pl.DataFrame(self._file.read_row_group(group, use_threads=False))
        return self._last[1]


def _group_heights(file: Any) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def height(table: Table) -> int:
    """How many rows there are, of a file by its footer."""
    if isinstance(table, pl.DataFrame):
        return table.height
    from pyarrow import parquet

    return int(parquet.read_metadata(table).num_rows)


def schema(contract: Contract) -> dict[str, pl.DataType]:
    """The Polars type of each column, in the declared order; `pl.DataFrame(schema=…)` is the empty table."""
    return {column.name: column.dtype for column in contract.columns}


def nullable(contract: Contract) -> dict[str, pl.DataType]:
    """The columns that may be null, with their types. In a table of before the contract had one of them it is."""
    needed = {test.column for test in contract.tests if test.kind == "not_null"}
    return {name: dtype for name, dtype in schema(contract).items() if name not in needed}


def conform(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """`frame` with its columns in the declared order and narrower numbers and nulls widened to the declared type.

    What is missing stays missing, what is extra goes last and what is mistyped stays so: the check reports it. A column
    that came later than the rows is null.
    """
    declared = schema(contract)
    later = [column for column in contract.columns if column.came_later and column.name not in frame.columns]
    frame = frame.with_columns(pl.lit(None, column.dtype).alias(column.name) for column in later)
    order = [name for name in declared if name in frame.columns]
    extra = [name for name in frame.columns if name not in declared]
    ordered = frame.select(*order, *extra)
    widened = {
        name: declared[name] if name in declared and _widens(dtype, declared[name]) else dtype
        for name, dtype in ordered.schema.items()
    }
    return ordered.cast(pl.Schema(widened))


def given_frames(unit_test: UnitTest, contracts: Mapping[str, Contract]) -> dict[str, pl.DataFrame]:
    """One frame per table of `unit_test.given`, typed by that table's own contract; what is not given is null."""
    frames = {}
    for table, rows in unit_test.given.items():
        if table not in contracts:
            raise ValueError(f"unit test {unit_test.name}: {table} has no contract; write {table}.yml")
        declared = schema(contracts[table])
        if unknown := sorted({name for row in rows for name in row} - declared.keys()):
            raise ValueError(f"unit test {unit_test.name}: {table} has no column {unknown[0]!r}; declare it")
        frames[table] = pl.DataFrame(rows, schema=declared, orient="row")
    return frames


def _widens(dtype: pl.DataType | DataTypeClass, declared: pl.DataType | DataTypeClass) -> bool:
    if isinstance(dtype, pl.List) and isinstance(declared, pl.List):
        return _widens(dtype.inner, declared.inner)
    return dtype == pl.Null() or dtype in _WIDENS.get(declared, set())
