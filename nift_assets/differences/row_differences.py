"""The rows of two sets of files held against each other by a key: which came, went or changed, and in which columns.

DuckDB reads the files where they lie. What is joined are keys and digests of columns, so long texts take no memory, and
what does not fit goes to a temporary folder. The rows that differ stand in one table, whatever table they are of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from nift_assets import catalogue
from nift_assets.differences.states import TablePartition

MEMORY = "1GB"
DIFFERING = "differing"
# Of what a key is made stands as JSON, since tables have different ones. The last two are for finding the reason.
MAKE_DIFFERING = f"""
create table {DIFFERING} (
    "table" varchar, partition varchar, document_id varchar, key varchar, change varchar, reason varchar,
    columns varchar[], teacher varchar, sample_rank bigint
)
"""


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory for rows that differ, which goes to a temporary folder with what does not fit."""
    with tempfile.TemporaryDirectory(prefix="nift-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": folder,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute(MAKE_DIFFERING)
            yield connection


def view(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[Path]) -> list[str]:
    """Makes a view over files, and gives the names of its columns."""
    connection.execute(f"create or replace temp view {name} as from {reading(files)}")
    return list(connection.table(name).columns)


def key_twice(connection: duckdb.DuckDBPyConnection, name: str, key: Sequence[str]) -> str | None:
    """A key that several rows of a view have, as JSON; None where each names one row."""
    columns = ", ".join(map(named, key))
    found = connection.execute(
        f"select {key_text(key)} from {name} group by {columns} having count(*) > 1 order by {columns} limit 1"
    ).fetchone()
    return str(found[0]) if found else None


def compare(
    connection: duckdb.DuckDBPyConnection,
    place: TablePartition,
    key: Sequence[str],
    columns: Sequence[str],
    types: Mapping[str, str],
    teachers: tuple[str | None, str | None] = (None, None),
) -> None:
    """Puts the rows of the views `before` and `after` that differ into their table. `columns` are those of both, of
    which the key names a row; a column has the type that is declared for it. `teachers` are whose rows they are where
    no column says so."""
    compared = [column for column in columns if column not in key]
    sides = [_side(side, key, compared, columns, types, teacher) for side, teacher in zip(SIDES, teachers, strict=True)]
    changed = ", ".join(
        f"case when before.{_digest(column)} <> after.{_digest(column)} then {quoted(column)} end"
        for column in compared
    )
    same_key = " and ".join(f"before.{named(column)} is not distinct from after.{named(column)}" for column in key)
    connection.execute(
        f"""
        insert into {DIFFERING}
        with
        before_rows as ({sides[0]}),
        after_rows as ({sides[1]}),
        joined as (
            select
                coalesce(after.document_of_row, before.document_of_row) as document_id,
                coalesce(after.key_of_row, before.key_of_row) as key,
                case when before.key_of_row is null then 'in' when after.key_of_row is null then 'out'
                    else 'changed' end as change,
                case when change = 'changed' then list_filter([{changed}]::varchar[], lambda name: name is not null)
                    else [] end as columns,
                coalesce(after.teacher_of_row, before.teacher_of_row) as teacher,
                coalesce(after.rank_of_row, before.rank_of_row) as sample_rank
            from before_rows as before
            full join after_rows as after on {same_key}
        )
        select ?, ?, document_id, key, change, null, columns, teacher, sample_rank
        from joined
        where change <> 'changed' or len(columns) > 0
        """,
        list(place),
    )


def keep_all(
    connection: duckdb.DuckDBPyConnection, place: TablePartition, key: Sequence[str], has_documents: bool, change: str
) -> None:
    """Puts all rows of the view `whole`, a partition that only one state has, into the table of those that differ."""
    document = named("document_id") if has_documents else "null"
    reason = f"the whole partition is {'new' if change == 'in' else 'gone'}"
    connection.execute(
        f"insert into {DIFFERING} select ?, ?, {document}, {key_text(key)}, ?, ?, [], null, null from whole",
        [*place, change, reason],
    )


def reading(files: Sequence[Path]) -> str:
    """The rows of files as a relation, whatever characters their paths have."""
    paths = ", ".join(quoted(catalogue.plain(file)) for file in files)
    # A folder called `teacher=x` would be read as a column, in the place of the file's own.
    return f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"


def key_text(key: Sequence[str]) -> str:
    """What names a row, as JSON."""
    return f"to_json({{{', '.join(f'{quoted(column)}: {named(column)}' for column in key)}}})::varchar"


def named(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


SIDES = ("before", "after")


def _side(
    side: str,
    key: Sequence[str],
    compared: Sequence[str],
    columns: Sequence[str],
    types: Mapping[str, str],
    teacher: str | None,
) -> str:
    """One state's keys and digests, and what is asked of a row to find the reason."""
    digests = [f"hash({_cast(column, types)}) as {_digest(column)}" for column in compared]
    asked = {
        "key_of_row": key_text(key),
        "document_of_row": named("document_id") if "document_id" in columns else "null::varchar",
        "teacher_of_row": named("teacher") if "teacher" in columns else quoted(teacher) if teacher else "null::varchar",
        "rank_of_row": f"{named('sample_rank')}::bigint" if "sample_rank" in columns else "null::bigint",
    }
    chosen = [*map(named, key), *digests, *(f"{value} as {name}" for name, value in asked.items())]
    return f"select {', '.join(chosen)} from {side}"


def _digest(column: str) -> str:
    return named(f"digest of {column}")


def _cast(column: str, types: Mapping[str, str]) -> str:
    return f"{named(column)}::{types[column]}" if column in types else named(column)
