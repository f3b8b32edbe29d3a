"""The rows of a query as text or as a file: a box for a person, CSV, JSON or Parquet for a program.

Rows are handed on a portion at a time, so a million of them take no more memory than some thousands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl
    from duckdb import DuckDBPyConnection, DuckDBPyRelation
    from duckdb.sqltypes import DuckDBPyType

Format = Literal["csv", "json", "jsonl", "parquet"]
ENDINGS: Mapping[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
AT_ONCE = 5_000
WITHOUT_PARQUET = {"interval", "bit", "union", "bignum", "time with time zone"}
# As many rows as a person may want to look through, and as many as are looked at to say how many there are.
SHOWN, COUNTED = 40, 10_000
# Not what a column would be called: a column's name goes before that of a lambda's parameter.
ITEM = "item_of_nift_query"
NESTED = {"list", "array", "struct", "map", "union"}


def format_of(path: Path) -> Format:
    """The format that a file's name says. Raises ValueError for a name that says none."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"{path} does not say what it is to be; let it end with {', '.join(ENDINGS)}, or give --csv, --json, "
            "--jsonl or --parquet"
        )
    return ENDINGS[path.suffix.lower()]


def show(rows: DuckDBPyRelation, views: DuckDBPyConnection, columns: int) -> str | None:
    """Prints the first and the last rows as a table of about this width; a line about the others, if there are any.

    The query is run once, unless it has more rows than are kept to be looked at.
    """
    if rows.columns == ["explain_key", "explain_value"]:
        print(*(drawn for _, drawn in rows.fetchall()), sep="\n")
        return None
    rows.query("asked", f"create or replace temp table shown as from asked limit {COUNTED + 1}")
    kept = views.table("temp.shown")
    (count,) = kept.count("*").fetchall()[0]
    is_long = count > COUNTED
    shown = kept.limit(SHOWN) if is_long else kept
    shown.show(max_width=columns, max_rows=SHOWN)
    if count <= SHOWN:
        return None
    (count,) = rows.count("*").fetchall()[0] if is_long else (count,)
    which = "the first " if is_long else ""
    return f"{count:,} rows, {which}{SHOWN} shown; all of them: --csv, --json or --out FILE"


def write_file(rows: DuckDBPyRelation, form: Format, out: Path) -> int:
    """Writes a file, whole or not at all, and says how many rows it was."""
    from nift_assets.store import replacing

    with replacing(out) as temporary:
        if form == "parquet":
            return write_parquet(rows, temporary)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            return write_text(rows, form, file)


def write_text(rows: DuckDBPyRelation, form: Format, file: IO[str]) -> int:
    """Writes CSV or JSON, and says how many rows it was. Raises ValueError for two columns of one name."""
    import polars as pl

    _refuse_twins(rows.columns)
    written = 0
    if form == "csv":
        cells = rows.project(", ".join(_as(_csv_cell(f"(#{n})", kind), name) for n, name, kind in _columns(rows)))
        file.write(_csv(pl.DataFrame(schema=dict.fromkeys(rows.columns, pl.String)), header=True))
        for portion in cells.to_arrow_reader(AT_ONCE):
            frame = pl.DataFrame(portion)
            file.write(_csv(frame, header=False))
            written += frame.height
        return written
    members = ", ".join(f"{_quoted(name)}: {_json_value(f'(#{n})', kind)}" for n, name, kind in _columns(rows))
    before, between, after = ("[", ",\n ", "]\n") if form == "json" else ("", "\n", "\n")
    file.write(before)
    for portion in rows.project(f"to_json({{{members}}})::varchar as row").to_arrow_reader(AT_ONCE):
        lines = portion.column(0).to_pylist()
        if lines:
            file.write((between if written else "") + between.join(lines))
        written += len(lines)
    file.write(after if form == "json" or written else "")
    return written


def write_parquet(rows: DuckDBPyRelation, path: Path) -> int:
    """Writes a Parquet file with the types as they are, and says how many rows it was; what Parquet has no type for
    stands as text.

    Not by DuckDB, whose writer waits for ever where a query fails midway (2.0).
    """
    from pyarrow import parquet

    _refuse_twins(rows.columns)
    as_text = {name for _, name, kind in _columns(rows) if _has(kind, WITHOUT_PARQUET)}
    shown = [_as(f"(#{n})::varchar" if name in as_text else f"#{n}", name) for n, name, _ in _columns(rows)]
    reader, written = (rows.project(", ".join(shown)) if as_text else rows).to_arrow_reader(AT_ONCE), 0
    with parquet.ParquetWriter(path, reader.schema, compression="zstd") as file:
        for portion in reader:
            file.write_batch(portion)
            written += portion.num_rows
    return written


def _columns(rows: DuckDBPyRelation) -> list[tuple[int, str, DuckDBPyType]]:
    return list(zip(range(1, len(rows.columns) + 1), rows.columns, rows.types, strict=True))


def _refuse_twins(names: Sequence[str]) -> None:
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise ValueError(f"two columns are named {twice!r}; give one of them another name with `as`")


def _csv_cell(value: str, kind: DuckDBPyType) -> str:
    """What is nested stands as JSON in its cell, bytes in base64."""
    if kind.id in NESTED:
        return f"to_json({_json_value(value, kind)})::varchar"
    return f"to_base64({value})" if kind.id == "blob" else f"({value})::varchar"


def _json_value(value: str, kind: DuckDBPyType) -> str:
    """An expression of the same value as JSON can have it: bytes in base64, and null for what is no number."""
    if kind.id in ("float", "double"):
        return f"(case when isfinite({value}) then {value} end)"
    if kind.id == "blob":
        return f"to_base64({value})"
    if kind.id not in NESTED or not _has(kind, {"float", "double", "blob"}):
        return value
    members: Mapping[str, Any] = dict(kind.children)
    if kind.id in ("list", "array"):
        return (
            f"list_transform({value}::{_list(members['child'])}, lambda {ITEM}: {_json_value(ITEM, members['child'])})"
        )
    if kind.id == "struct":
        parts = ", ".join(f"{_quoted(n)}: {_json_value(f'{value}.{_name(n)}', t)}" for n, t in members.items())
        return f"(case when {value} is not null then {{{parts}}} end)"
    if kind.id == "map":
        entry = f"{{'k': {ITEM}.key::varchar, 'v': {_json_value(f'{ITEM}.value', members['value'])}}}"
        entries = f"list_transform(map_entries({value}), lambda {ITEM}: {entry})"
        return f"map_from_entries({entries})"
    return f"({value})::varchar"


def _has(kind: DuckDBPyType, wanted: set[str]) -> bool:
    if kind.id in wanted or kind.id not in NESTED:
        return kind.id in wanted
    children: Mapping[str, Any] = dict(kind.children)
    return any(_has(child, wanted) for name, child in children.items() if name != "size")


def _list(child: DuckDBPyType) -> str:
    return f"{child}[]"


def _as(value: str, name: str) -> str:
    return f"{value} as {_name(name)}"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _csv(frame: pl.DataFrame, *, header: bool) -> str:
    return frame.write_csv(include_header=header)
