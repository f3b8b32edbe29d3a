"""Contracts: what one row of a table is, which columns it has, and what must be true of them.

The shape is dbt's: `tests` under a column or under the table, each a bare name or `{kind: arguments}`, and
`unit_tests` with given and expected rows. Whatever is misspelt stops the load with one line that says where.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import polars as pl
import yaml

from expectations import parsed_contracts

FOLDER = Path(__file__).parent
# Where there are more: of one table there is one contract in a process.
_beside: list[Path] = []

# In the contract of a kind, the name of the table without its kind.
NAME = "<name>"

Severity = Literal["error", "warn"]

# DuckDB's name for a column's type, and what Polars calls it. `[]` behind a name makes it a list.
DTYPES: dict[str, pl.DataType] = {
    "VARCHAR": pl.String(),
    "BIGINT": pl.Int64(),
    "INTEGER": pl.Int32(),
    "DOUBLE": pl.Float64(),
    "BOOLEAN": pl.Boolean(),
    "DATE": pl.Date(),
    "TIMESTAMP": pl.Datetime("us"),
    "TIMESTAMP WITH TIME ZONE": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column; one that `came_later` is null in rows that were made before the contract had it."""

    name: str
    type: str
    description: str
    came_later: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """The Polars type; `VARCHAR[]` is a list of strings."""
        return _dtype(self.type)


@dataclass(frozen=True, kw_only=True)
class ContractTest:
    """One promise; its name is unique in the contract, and `column` is None if it is about the whole table."""

    __test__ = False  # pytest would collect it by its name

    name: str
    kind: str
    column: str | None
    severity: Severity
    description: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class UnitTest:
    """Rows of the tables a SQL model reads, and the rows it must make of them."""

    name: str
    partition: str | None
    given: Mapping[str, tuple[Mapping[str, Any], ...]]
    expect: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A table's promise; its first column names a row, its first test is always `columns_as_declared`."""

    table: str
    description: str
    columns: tuple[Column, ...]
    tests: tuple[ContractTest, ...]
    unit_tests: tuple[UnitTest, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of test: the sentence it stands for, the arguments it takes and the column types it is for."""

    says: str
    must: Mapping[str, type] = field(default_factory=dict)
    bounded: bool = False
    types: tuple[str, ...] | None = None

    @property
    def may(self) -> Mapping[str, type]:
        bounds: dict[str, type] = {"min": float, "max": float} if self.bounded else {}
        return {"name": str, "severity": str, "description": str} | bounds


NUMBERS = ("BIGINT", "INTEGER", "DOUBLE")
TEXT = ("VARCHAR",)

COLUMN_KINDS = {
    "not_null": Kind("`{column}` is never null."),
    "unique": Kind("No two rows have the same `{column}`."),
    "between": Kind("`{column}` is {bounds}.", bounded=True, types=NUMBERS),
    "accepted_values": Kind("`{column}` is one of {values}.", {"values": list}, types=(*TEXT, *NUMBERS, "BOOLEAN")),
    "length_between": Kind("The number of characters of `{column}` is {bounds}.", bounded=True, types=TEXT),
    "matches": Kind("`{column}` matches {regex}.", {"regex": str}, types=TEXT),
    "relationships": Kind("Every `{column}` is a `{field}` of {to}.", {"to": str, "field": str}),
}
TABLE_KINDS = {
    "row_count": Kind("The number of rows is {bounds}.", bounded=True),
    "unique": Kind("No two rows have the same {columns}.", {"columns": list}),
    "expression": Kind("In every row: {sql}.", {"name": str, "sql": str}),
    "share": Kind("The share of rows with {sql} is {bounds}.", {"name": str, "sql": str}, bounded=True),
    "no_rows": Kind("No row comes back from: {sql}", {"name": str, "sql": str}),
}


def tables(folder: Path = FOLDER) -> list[str]:
    """The tables that have a contract, in alphabetical order."""
    return sorted(file.stem for file in folder.glob("*.yml"))


def known() -> set[str]:
    """The tables that have a contract, here or beside a study that was loaded."""
    return {table for folder in (FOLDER, *_beside) for table in tables(folder)}


def is_known(table: str) -> bool:
    """Whether a table has a contract, its own or that of its kind."""
    return bool({table, table.rpartition("_")[2]} & known())


def load(table: str, folder: Path = FOLDER) -> Contract:
    """The contract in `<table>.yml`; without that file, the one of its kind: `near_duplicates_removals` keeps
    `removals.yml`, and `<name>` in its tests is then `near_duplicates`. A file that is `like: <table>` has all that is
    not in it from there, its unit tests aside; a column of which it gives the name alone is that table's.

    A ValueError names the file, the place and the remedy.
    """
    kind = table.rpartition("_")[2]
    if _file(table, folder) is None and _file(kind, folder):
        return _of_kind(load(kind, folder), table)
    text, place = _text(table, folder), f"{table}.yml"
    written = _parsed(text, place)
    like = written.get("like") if isinstance(written, dict) else None
    if like and not (isinstance(like, str) and _file(like, folder)):
        _stop(place, f"like {like!r}, which is no contract", f"use one of {', '.join(tables(folder))}")
    return _contract(table, place, text, _text(like, folder) if like else None)


def look_beside(folder: Path) -> None:
    """Has contracts found that lie in a folder of somebody's own.

    ValueError for one of a table that has one here, and for one that is wrong.
    """
    written = tables(folder)
    if not written or folder in _beside:
        return
    for table in written:
        if (FOLDER / f"{table}.yml").is_file():
            raise ValueError(f"{folder / table}.yml: the package has the contract of {table}; give yours another name")
        for other in (each / f"{table}.yml" for each in _beside):
            if other.is_file() and other.read_bytes() != (folder / f"{table}.yml").read_bytes():
                raise ValueError(
                    f"{folder / table}.yml: another study of this process has another contract of {table}, {other}; "
                    "give yours another name"
                )
    _beside.append(folder)
    try:
        for table in written:
            load(table)
    except ValueError:
        _beside.remove(folder)
        raise


def _file(table: str, folder: Path) -> Path | None:
    """Where the contract of a table stands; None if it stands nowhere."""
    places = [folder, *_beside] if folder == FOLDER else [folder]
    return next((file for place in places if (file := place / f"{table}.yml").is_file()), None)


def _of_kind(contract: Contract, table: str) -> Contract:
    name = table.removesuffix(f"_{contract.table}")
    tests = tuple(
        replace(
            test,
            arguments={
                key: value.replace(NAME, name) if isinstance(value, str) else value
                for key, value in test.arguments.items()
            },
        )
        for test in contract.tests
    )
    return replace(contract, table=table, tests=tests)


def _column_like(written: object, pattern: Mapping[str, Any], place: str) -> object:
    if not isinstance(written, str):
        return written
    for column in pattern["columns"]:
        if column["name"] == written:
            return column
    _stop(place, f"{pattern['table']} has no column {written!r} to be like", "write its type and description")


def _text(table: str, folder: Path) -> str:
    file = _file(table, folder)
    if file is None:
        raise ValueError(f"{table}.yml: no such contract; write it or use one of {', '.join(tables(folder))}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        _stop(file.name, f"byte {error.start} is not UTF-8", "save it as UTF-8")


# A contract is loaded again wherever its table is shown, checked, written or read. What is kept nobody changes.


@cache
def _parsed(text: str, place: str) -> object:
    """What `yaml.safe_load` gives."""
    try:
        return parsed_contracts.parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError for a date that is none
        _stop(place, f"not YAML ({' '.join(str(error).split())})", "mend that line")


@cache
def _contract(table: str, place: str, text: str, pattern: str | None) -> Contract:
    written = _parsed(text, place)
    if isinstance(written, dict) and pattern is not None:
        like = written["like"]
        inherited = _parsed(pattern, f"{like}.yml")
        if isinstance(inherited, dict) and "like" in inherited:
            _stop(place, f"like {like!r}, which is like another itself", "name that one")
        _contract(like, f"{like}.yml", pattern, None)  # says itself what is wrong with it
        assert isinstance(inherited, dict), "it has been read as a contract"
        own = {name: value for name, value in written.items() if name != "like"}
        written = inherited | {"unit_tests": []} | own
        if isinstance(written["columns"], list):
            written["columns"] = [_column_like(entry, inherited, place) for entry in written["columns"]]
    fields = _fields(
        written, place, {"table": str, "description": str, "columns": list}, {"tests": list, "unit_tests": list}
    )
    if fields["table"] != table:
        _stop(place, f"table is {fields['table']!r}", "name the table as the file")
    columns = tuple(_column(entry, f"{place}, column {_label(entry)}") for entry in fields["columns"])
    if not columns:
        _stop(place, "no columns", "declare at least the one that names a row")
    _unique(place, "column", (column.name for column in columns))
    tests = (_COLUMNS_AS_DECLARED, *_column_tests(fields["columns"], place), *_table_tests(fields, place))
    _unique(place, "test", (test.name for test in tests))
    for test in tests[1:]:
        _fits(test, {column.name: column.type for column in columns}, f"{place}, test {test.name}")
    unit_tests = tuple(_unit_test(entry, f"{place}, unit test {_label(entry)}") for entry in fields["unit_tests"])
    _unique(place, "unit test", (unit_test.name for unit_test in unit_tests))
    return Contract(
        table=table,
        description=fields["description"].strip(),
        columns=columns,
        tests=tests,
        unit_tests=unit_tests,
    )


_COLUMNS_AS_DECLARED = ContractTest(
    name="columns_as_declared",
    kind="columns_as_declared",
    column=None,
    severity="error",
    description="The table has exactly the columns declared, each of its declared type.",
    arguments={},
)


def _column(written: object, place: str) -> Column:
    fields = _fields(
        written, place, {"name": str, "type": str, "description": str}, {"tests": list, "came_later": bool}
    )
    try:
        _dtype(fields["type"])
    except KeyError:
        _stop(place, f"unknown type {fields['type']!r}", f"use one of {', '.join(DTYPES)}, or one followed by []")
    return Column(
        name=fields["name"],
        type=fields["type"],
        description=fields["description"].strip(),
        came_later=fields.get("came_later") or False,
    )


def _column_tests(columns: Iterable[Mapping[str, Any]], place: str) -> Iterable[ContractTest]:
    for column in columns:
        for written in column.get("tests") or ():
            yield _test(written, f"{place}, column {column['name']}", COLUMN_KINDS, column["name"])


def _table_tests(fields: Mapping[str, Any], place: str) -> Iterable[ContractTest]:
    for written in fields["tests"]:
        yield _test(written, place, TABLE_KINDS, None)


def _test(written: object, place: str, kinds: Mapping[str, Kind], column: str | None) -> ContractTest:
    if isinstance(written, str):
        written = {written: None}
    if not isinstance(written, dict) or len(written) != 1:
        _stop(place, f"cannot read the test {written!r}", "write `- kind` or `- kind: {arguments}`")
    ((kind, arguments),) = written.items()
    if kind not in kinds:
        _stop(place, f"unknown test {kind!r}", f"use one of {', '.join(kinds)}")
    place = f"{place}, test {kind}"
    options = _fields(arguments or {}, place, kinds[kind].must, kinds[kind].may)
    if kinds[kind].bounded and options["min"] is None and options["max"] is None:
        _stop(place, "no bound", "give min, max or both")
    if column is not None and kind == "unique":
        options["columns"] = [column]
    about = column or "_".join(map(str, options.get("columns", ())))
    name = options.pop("name") or f"{about}_{kind}".lstrip("_")
    if not name.isascii() or not name.replace("_", "").isalnum():
        _stop(place, f"a check cannot be called {name!r}", "name it with letters, digits and _ only")
    severity: Severity = options.pop("severity") or "error"
    if severity not in get_args(Severity):
        _stop(place, f"unknown severity {severity!r}", f"use one of {', '.join(get_args(Severity))}")
    words = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in options.items()}
    says = kinds[kind].says.format(column=column, bounds=bounds(options), **words)
    description = options.pop("description") or says
    return ContractTest(
        name=name, kind=kind, column=column, severity=severity, description=description.strip(), arguments=options
    )


def _fits(test: ContractTest, types: Mapping[str, str], place: str) -> None:
    for absent in set(test.arguments.get("columns", ())) - types.keys():
        _stop(place, f"no column {absent!r}", "use a declared column")
    if test.column is not None:
        allowed = COLUMN_KINDS[test.kind].types
        if allowed and types[test.column] not in allowed:
            _stop(place, f"{test.kind} of a {types[test.column]}", f"it is for {', '.join(allowed)}")


def bounds(arguments: Mapping[str, Any]) -> str:
    """`min` and `max` in words: "at least 1", "at most 0.2" or "between 1 and 100"."""
    low, high = arguments.get("min"), arguments.get("max")
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"between {low} and {high}"


def _unit_test(written: object, place: str) -> UnitTest:
    fields = _fields(written, place, {"name": str, "given": dict, "expect": list}, {"partition": str})
    for table, rows in (fields["given"] | {"expect": fields["expect"]}).items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            _stop(place, f"the rows of {table} are no list of mappings", "write `- {column: value}` for each row")
    inputs = {table: tuple(rows) for table, rows in fields["given"].items()}
    return UnitTest(name=fields["name"], partition=fields["partition"], given=inputs, expect=tuple(fields["expect"]))


def _fields(written: object, place: str, must: Mapping[str, type], may: Mapping[str, type]) -> dict[str, Any]:
    """Every key of `must` and `may` with its value; what may be left out is None, or an empty list."""
    if not isinstance(written, dict):
        _stop(place, f"expected a mapping, found {written!r}", f"give it {', '.join(must) or ', '.join(may)}")
    kind_by_key = {**may, **must}
    for key in written:
        if key not in kind_by_key:
            _stop(place, f"unknown key {key!r}", f"use only {', '.join(kind_by_key)}")
    for key in must:
        if written.get(key) in (None, ""):
            _stop(place, f"no {key}", "add it")
    for key, value in written.items():
        kinds = (int, float) if kind_by_key[key] is float else kind_by_key[key]
        if value is not None and (
            not isinstance(value, kinds) or isinstance(value, bool) != (kind_by_key[key] is bool)
        ):
            _stop(place, f"{key} is {value!r}", f"make it a {kind_by_key[key].__name__}")
    empty: dict[str, Any] = {key: [] if kind is list else None for key, kind in kind_by_key.items()}
    return empty | {key: value for key, value in written.items() if value is not None}


def _dtype(type_name: str) -> pl.DataType:
    if type_name.endswith("[]"):
        return pl.List(_dtype(type_name.removesuffix("[]")))
    return DTYPES[type_name]


def _label(written: object) -> str:
    return str(written.get("name", "without a name")) if isinstance(written, dict) else repr(written)


def _unique(place: str, what: str, names: Iterable[str]) -> None:
    # DuckDB does not tell `A` from `a`, and checks become its columns.
    for name, times in Counter(name.lower() for name in names).items():
        if times > 1:
            _stop(place, f"{times} {what}s are called {name!r}", "give each a name of its own")


def _stop(place: str, problem: str, remedy: str) -> NoReturn:
    raise ValueError(f"{place}: {problem}; {remedy}")
