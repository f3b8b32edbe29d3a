"""Whether a frame keeps its contract: one plain result per test.

Great Expectations knows neither Polars nor DuckDB, and hashes whatever it is given. So DuckDB reads the frames and
makes two small ones: a *projection* with a column per test about rows (numbers, lengths, fingerprints, truth values,
never a text), and a *summary* of one row for the tests about the whole table. Those two are what is validated.
"""

import atexit
import glob
import hashlib
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
from duckdb.func import PythonUDFType

from expectations.contract import Contract, ContractTest, Severity, bounds
from expectations.frames import Stacked, Table
from expectations.put_off import put_off

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 5
EXAMPLE_CHARACTERS = 80
# Of a test that fails no more is kept than a person reads; of long texts no more than goes into memory at once.
FAILING_ROWS = 100
FAILING_BYTES = 32 * 2**20
PORTION = 4_096
AS_MADE = "as made"
ROWS = "how many rows"  # the spaces keep it apart from the name of any test

# These are one number about the whole table; every other kind looks at rows.
SUMMARISED = ("columns_as_declared", "share", "no_rows")

# The values that fail these are numbers or a few characters, and say at once what is wrong.
SHOWN = ("between", "length_between", "accepted_values")

# Contracts are code, the frames are web text: nothing outside the registered frames can be named or reached.
SEALED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}

_DIGESTING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ExpectationResult:
    """What became of one test.

    `failing` counts rows (columns for `columns_as_declared`) and `share` is their share of `rows`; for a test of kind
    `share` it is the share measured. Both are None where they mean nothing or the test could not be run.
    """

    name: str
    passed: bool
    severity: Severity
    description: str
    kind: str
    column: str | None
    rows: int
    message: str
    failing: int | None = None
    share: float | None = None
    observed: str | float | int | None = None
    examples: tuple[str, ...] = ()


def check(
    table: Table, contract: Contract, inputs: Mapping[str, Table | Stacked] = MappingProxyType({})
) -> list[ExpectationResult]:
    """One result per test of `contract`, in its order; `inputs` are the tables its SQL and relationships name.

    A test that reads a column which is missing or of another type fails with that reason. SQL that DuckDB cannot
    run is a ValueError.
    """
    faults = _faults(_schema(table), contract)
    summarised = [test for test in contract.tests if test.kind in SUMMARISED]
    by_row = [test for test in contract.tests if test.kind not in SUMMARISED]
    with _connect({**inputs, AS_MADE: table}) as connection:
        connection.execute(f"create temp view this as {_as_declared(contract, faults)}")
        numbers = summary(connection, contract, len(faults))
        projected = projection(connection, contract)
        outcomes = _validate(numbers, summarised) | _validate(projected, by_row)
        readings = _Readings(int(numbers[ROWS].iloc[0]), numbers.iloc[0], faults, outcomes, connection)
        return [_result(test, contract, readings) for test in contract.tests]


def failing_rows(
    table: Table,
    contract: Contract,
    results: Iterable[ExpectationResult],
    inputs: Mapping[str, Table | Stacked] = MappingProxyType({}),
) -> dict[str, pl.DataFrame]:
    """The first rows of `table` that fail each test which failed by `results`, at most `FAILING_ROWS`; only tests that
    are about rows have any.

    Of a test of kind `share` these are the rows of which there are too many. Of one of kind `no_rows` it is what came
    back, with the rows of the table that it names.
    """
    faults = _faults(_schema(table), contract)
    failed = {result.name: result for result in results if not result.passed}
    unsound = [column.name for column in contract.columns if column.name in faults]
    asked = [test for test in contract.tests if test.name in failed and not columns_read(test, unsound)]
    types: dict[str | None, str] = {column.name: column.type for column in contract.columns}
    kept = {}
    if not (queries := {t.name: q for t in asked if (q := _failing(t, types, failed[t.name].share)) is not None}):
        return {}
    with _connect({**inputs, AS_MADE: table}) as connection:
        connection.execute(f"create temp view this as {_as_declared(contract, faults)}")
        for test in (test for test in asked if test.name in queries):
            query = queries[test.name]
            if test.kind == "no_rows":
                query = _with_rows_of_this(connection, query, [column.name for column in contract.columns])
            rows = connection.sql(f"{query}\nlimit {FAILING_ROWS}").pl()
            declared = {column.name: column.dtype for column in contract.columns if column.name in rows.columns}
            kept[test.name] = _within_bytes(rows.cast(pl.Schema(declared)) if declared else rows)
    return {name: rows for name, rows in kept.items() if rows.height}


def _failing(test: ContractTest, types: Mapping[str | None, str], share: float | None) -> str | None:
    """SQL for the rows that fail a test, in their order; None for a test that is about no row."""
    low, high = test.arguments.get("min"), test.arguments.get("max")
    column, measure = f'"{test.column}"', ""
    if test.kind not in (*SUMMARISED, "row_count"):
        measure = _measure_of_rows(test, types.get(test.column))
    match test.kind:
        case "columns_as_declared" | "row_count":
            return None
        case "no_rows":
            return str(test.arguments["sql"])
        case "share":
            if share is None:
                return None
            return f"from this where {'' if high is not None and share > high else 'not '}{_holds(test)}"
        case "unique":
            # Those that are equal stand below each other.
            return f"from this where {_print(test)} in ({_prints_that_come_twice(test)}) order by {_print(test)}"
        case "not_null":
            return f"from this where {column} is null"
        case "accepted_values":
            values = ", ".join(_literal(value) for value in test.arguments["values"])
            return f"from this where {column} not in ({values})" if values else f"from this where {column} is not null"
        case "between" | "length_between":
            beyond = [
                *([f"{measure} < {low}"] if low is not None else []),
                *([f"{measure} > {high}"] if high is not None else []),
            ]
            return f"from this where {' or '.join(beyond)}"
    return f"from this where not ({measure})"


def _with_rows_of_this(connection: duckdb.DuckDBPyConnection, query: str, columns: Sequence[str]) -> str:
    """What came back, behind the rows of the table that have its first columns where it has any of theirs."""
    returned = connection.sql(f"select * from ({query}\n) limit 0").columns
    shared = [name for name in returned if name in columns]
    if not shared or set(columns) <= set(returned):
        return f"select * from ({query}\n)"
    own = [name for name in returned if name not in columns]
    selected = ", ".join(["this.*", *(f'came."{name}"' for name in own)])
    joined = " and ".join(f'this."{name}" is not distinct from came."{name}"' for name in shared)
    return f"select {selected} from (select * from ({query}\n) limit {FAILING_ROWS}) as came join this on {joined}"


def _within_bytes(rows: pl.DataFrame) -> pl.DataFrame:
    """The first rows that fit, of which there is always one."""
    while rows.height > 1 and rows.estimated_size() > FAILING_BYTES:
        rows = pl.DataFrame(rows.head(rows.height // 2).to_dict())  # a slice still counts what it was cut from
    return rows


def _literal(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else str(value)


def projection(connection: duckdb.DuckDBPyConnection, contract: Contract) -> "pd.DataFrame":
    """One row per row of `this`, with what there is to judge for each test about rows: eight bytes of each."""
    types: dict[str | None, str] = {column.name: column.type for column in contract.columns}
    judged = [test for test in contract.tests if test.kind not in SUMMARISED]
    measures = {test.name: _measure_of_rows(test, types.get(test.column)) for test in judged}
    # Beside a column of the rows no measure can be one number for all of them.
    projected = _select(connection, contract, {ROWS: f'"{contract.columns[0].name}" is null', **measures}, "from this")
    return projected.drop(columns=ROWS)


def summary(connection: duckdb.DuckDBPyConnection, contract: Contract, faults: int) -> "pd.DataFrame":
    """One row: a number for each test about the whole table; `faults` is that of `columns_as_declared`."""
    shares = {test.name: f"avg({_holds(test)}::int)" for test in contract.tests if test.kind == "share"}
    counts = {"columns_as_declared": str(faults), ROWS: "(select count(*) from this)"}
    for test in contract.tests:
        if test.kind == "no_rows":
            counts[test.name] = f"(select count(*) from ({test.arguments['sql']}\n))"
    counted = _select(connection, contract, counts, "")
    # All shares in one scan: a subquery each takes as long again to plan.
    return counted.join(_select(connection, contract, shares, "from this")) if shares else counted


def _measure_of_rows(test: ContractTest, column_type: str | None) -> str:
    """SQL for what `_expectation` judges. Null stands for "nothing to judge", save for `not_null`."""
    column = f'"{test.column}"'
    match test.kind:
        case "not_null":
            return f"nullif({column} is not null, false)"
        case "row_count":
            return "true"
        case "unique":
            mine = _print(test)
            return f"if({mine} is null, null, {mine} not in ({_prints_that_come_twice(test)}))"
        case "between" if column_type == "DOUBLE":
            # Pandas would take NaN for a missing value and let it pass: here it falls beyond the bound.
            beyond = "infinity" if test.arguments["min"] is None else "-infinity"
            return f"if(isnan({column}), '{beyond}'::double, {column})"
        case "accepted_values" if column_type == "VARCHAR":
            # What is accepted need not be judged once more, row by row. One character more than any accepted value is
            # enough to tell the others apart, and is no text.
            values = [str(value) for value in test.arguments["values"]]
            accepted = f"{column} in ({', '.join(map(_quoted, values))})" if values else "false"
            return f"if({accepted}, null, left({column}, {max(map(len, values), default=0) + 1}))"
        case "length_between":
            return f"length({column})"
        case "matches":
            return f"regexp_matches({column}, {_quoted(test.arguments['regex'])})"
        case "relationships":
            parents = f'select "{test.arguments["field"]}" from "{test.arguments["to"]}"'
            return f"if({column} is null, null, coalesce({column} in ({parents}), false))"
        case "expression":
            return _holds(test)
    return column


def _print(test: ContractTest) -> str:
    """SQL for a fingerprint of the columns that are to be unique together; null where a single one is."""
    prints = [f'md5("{name}"::varchar)' for name in test.arguments["columns"]]
    return prints[0] if len(prints) == 1 else f"md5([{', '.join(prints)}]::varchar)"


def _prints_that_come_twice(test: ContractTest) -> str:
    every = f"select {_print(test)} as m from this"
    return f"select m from ({every}) where m is not null group by m having count(*) > 1"


def _expectation(test: ContractTest) -> Any:
    """The expectation about the column that bears the test's name."""
    gxe = _great_expectations().expectations
    marks = {
        "meta": {"check": test.name},
        "description": test.description,
        "severity": "critical" if test.severity == "error" else "warning",
    }
    low, high = test.arguments.get("min"), test.arguments.get("max")
    match test.kind:
        case "not_null":
            return gxe.ExpectColumnValuesToNotBeNull(column=test.name, **marks)
        case "accepted_values":
            values = test.arguments["values"]
            return gxe.ExpectColumnValuesToBeInSet(column=test.name, value_set=values, **marks)
        case "unique" | "matches" | "relationships" | "expression":
            return gxe.ExpectColumnValuesToBeInSet(column=test.name, value_set=[True], **marks)
        case "row_count":
            return gxe.ExpectTableRowCountToBeBetween(min_value=low, max_value=high, **marks)
        case "columns_as_declared" | "no_rows":
            return gxe.ExpectColumnSumToBeBetween(column=test.name, min_value=0, max_value=0, **marks)
    return gxe.ExpectColumnValuesToBeBetween(column=test.name, min_value=low, max_value=high, **marks)


def _validate(frame: "pd.DataFrame", tests: list[ContractTest]) -> dict[str, Any]:
    """What Great Expectations found for each test, by its name: the results come back in another order.

    Whether a test passes is asked first; the values and rows behind it, which cost as much again, only where it fails.
    """
    gx = _great_expectations()
    batch = _frames().get_batch({"dataframe": frame})

    def ask(asked: list[ContractTest], result_format: Any) -> dict[str, Any]:
        suite = gx.ExpectationSuite(name="contract", expectations=[_expectation(test) for test in asked])
        results = batch.validate(suite, result_format=result_format).results
        outcomes = {result.expectation_config.meta["check"]: result for result in results}
        assert outcomes.keys() == {test.name for test in asked}, "Great Expectations dropped an expectation"
        for name, result in outcomes.items():
            assert result.exception_info.get("raised_exception") is False, f"{name}: {result.exception_info}"
        return outcomes

    by_name = ask(tests, "BOOLEAN_ONLY")
    failed = [test for test in tests if not by_name[test.name].success]
    # Failing rows come back as positions: naming a column instead costs 2 s for each check that 80,000 rows fail.
    summary = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    return by_name | (ask(failed, summary) if failed else {})


@cache
def _great_expectations() -> Any:
    """Great Expectations without SciPy's statistics and Altair, which it imports for one expectation that no contract
    has: they are two of the five CPU seconds that its import takes, in every process that makes a table.
    """
    with put_off("scipy.stats", "altair"):
        import great_expectations
        import great_expectations.expectations
    return great_expectations


@cache
def _frames() -> Any:
    """Where frames are handed to Great Expectations, made once: a context of its own takes as long as ten tests."""
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")  # without the mode it looks for a project in every parent folder
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


@dataclass(frozen=True)
class _Readings:
    """What was measured and judged: how many rows, a number or a finding by test, a fault by column."""

    rows: int
    numbers: "pd.Series[Any]"
    faults: Mapping[str, str]
    outcomes: Mapping[str, Any]
    connection: duckdb.DuckDBPyConnection


def _result(test: ContractTest, contract: Contract, readings: _Readings) -> ExpectationResult:
    """The result of one test, with the reason in its message if a column it reads is not as declared."""
    outcome = readings.outcomes[test.name]
    result = ExpectationResult(
        name=test.name,
        passed=outcome.success,
        severity=test.severity,
        description=test.description,
        kind=test.kind,
        column=test.column,
        rows=readings.rows,
        message="",
    )
    unsound = [column.name for column in contract.columns if column.name in readings.faults]
    if unread := columns_read(test, unsound):
        reasons = "; ".join(readings.faults[name] for name in unread)
        return replace(result, passed=False, message=f"not run: {reasons}")
    match test.kind:
        case "columns_as_declared":
            faults = readings.faults
            observed = "; ".join(faults.values()) or None
            examples = tuple(faults)[:EXAMPLES]
            message = observed or "as declared"
            return replace(result, failing=len(faults), observed=observed, examples=examples, message=message)
        case "row_count":
            message = f"{result.rows} rows, expected {bounds(test.arguments)}"
            return replace(result, observed=result.rows, message=message)
        case "share":
            share = float(readings.numbers[test.name]) if result.rows else None
            message = "no rows" if share is None else _share_in_words(test, contract.table, share, result.rows)
            return replace(result, share=share, observed=share, message=message)
        case "no_rows":
            returned = int(readings.numbers[test.name])
            examples = _examples(readings.connection, test.arguments["sql"]) if returned else ()
            message = f"{returned} {'row' if returned == 1 else 'rows'} came back" + _listed(examples)
            return replace(result, failing=returned, observed=returned, examples=examples, message=message)
    failing = [] if outcome.success else _names_of_failing(readings.connection, contract, test)
    return _about_rows(result, outcome.result, failing)


def _share_in_words(test: ContractTest, table: str, share: float, rows: int) -> str:
    """ "97% of 66 completions (64 rows), expected at most 20%"."""
    limits = {name: f"{_percent(test.arguments[name])}" for name in ("min", "max") if test.arguments[name] is not None}
    said = _percent(share, *(test.arguments[name] for name in limits))
    holding = round(share * rows)
    of = f"{rows:,} {table.replace('_', ' ') if table.endswith('s') else 'rows'}"
    counted = f"{holding:,} {'row' if holding == 1 else 'rows'}"
    return f"{said} of {of} ({counted}), expected {bounds({'min': None, 'max': None} | limits)}"


def _percent(share: float, *limits: float) -> str:
    """A share in per cent, with as many digits as keep it on its side of the limits, of nothing and of all."""
    digits = 3
    while digits < 9:
        said = float(f"{share:.{digits}g}")
        if all((said > limit, said < limit) == (share > limit, share < limit) for limit in (0, 1, *limits)):
            break
        digits += 1
    return f"{100 * share:.{digits}g}%"


def _about_rows(result: ExpectationResult, outcome: Mapping[str, Any], names: Sequence[str]) -> ExpectationResult:
    if result.passed:
        return replace(result, failing=0, share=0.0, message=f"0 of {result.rows} rows fail")
    failing = outcome["unexpected_count"]
    examples = tuple(dict.fromkeys(names))
    values = dict.fromkeys(str(value) for value in outcome["partial_unexpected_list"])
    observed = ", ".join(values) if values and result.kind in SHOWN else None
    return replace(
        result,
        failing=failing,
        share=failing / result.rows if result.rows else 0.0,
        observed=observed,
        examples=examples,
        message=f"{failing} of {result.rows} rows fail" + (f" with {observed}" if observed else "") + _listed(examples),
    )


def _names_of_failing(connection: duckdb.DuckDBPyConnection, contract: Contract, test: ContractTest) -> list[str]:
    """The first column of the first rows that fail a test."""
    query = _failing(test, {column.name: column.type for column in contract.columns}, None)
    name = f"coalesce(left(\"{contract.columns[0].name}\"::varchar, {EXAMPLE_CHARACTERS}), 'null')"
    found = connection.execute(f"select {name} from ({query}) limit {EXAMPLES}").fetchall()
    return [str(row[0]) for row in found]


def _listed(examples: Iterable[str]) -> str:
    return f": {', '.join(examples)}" if examples else ""


def _schema(table: Table) -> Mapping[str, Any]:
    return table.schema if isinstance(table, pl.DataFrame) else pl.read_parquet_schema(table)


def _faults(dtypes: Mapping[str, Any], contract: Contract) -> dict[str, str]:
    """Why a column is not as declared, by its name; empty if all are."""
    faults = {}
    for column in contract.columns:
        if column.name not in dtypes:
            faults[column.name] = f"{column.name} is missing, declared {column.type}"
        elif dtypes[column.name] != column.dtype:
            faults[column.name] = f"{column.name} is {dtypes[column.name]}, declared {column.type} ({column.dtype})"
    declared = {column.name for column in contract.columns}
    return faults | {name: f"{name} is not declared" for name in dtypes if name not in declared}


def _connect(tables: Mapping[str, Table | Stacked]) -> duckdb.DuckDBPyConnection:
    """A connection that sees these tables and no other connection's."""
    stacked = {name: table for name, table in tables.items() if isinstance(table, Stacked)}
    parts = {f"{name} {place}": part for name, of in stacked.items() for place, part in enumerate(of.tables)}
    single = {name: table for name, table in tables.items() if not isinstance(table, Stacked)} | parts
    files = [table for table in single.values() if isinstance(table, Path)]
    connection = _sealed(files) if files else _database().cursor()
    _register(connection, single)
    for name, of in stacked.items():
        connection.register(f"{name} none", pl.DataFrame(schema=of.columns).to_arrow())
        columns = ", ".join(f'"{column}"' for column in of.columns)
        selects = [f'select {columns} from "{name} {place}"' for place in ("none", *range(len(of.tables)))]
        connection.execute(f'create temp view "{name}" as {" union all ".join(selects)}')
    return connection


def _register(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Table]) -> None:
    for name, table in tables.items():
        if isinstance(table, Path) and glob.has_magic(str(table)):
            table = pl.read_parquet(table, glob=False)  # DuckDB would take its name for a pattern
        if isinstance(table, Path):
            connection.execute(f'create temp view "{name}" as from read_parquet({_quoted(str(table))})')
        else:
            # As Arrow's views, which DuckDB reads where they are: of texts in Arrow's older layout it makes a copy.
            connection.register(name, _in_portions(table).to_arrow(compat_level=pl.CompatLevel.newest()))


def _as_declared(contract: Contract, faults: Mapping[str, str]) -> str:
    """SQL for the table with exactly the declared columns; nulls where one is not as declared, so all tests can run."""
    columns = (
        f'null::{column.type} as "{column.name}"' if column.name in faults else f'"{column.name}"'
        for column in contract.columns
    )
    return f'select {", ".join(columns)} from "{AS_MADE}"'


def _in_portions(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows in the same order and place, cut into portions that DuckDB's threads take turns at."""
    if not frame.width:
        return pl.DataFrame(schema={"nothing": pl.Null})  # DuckDB knows no table without columns
    if frame.height <= PORTION:
        return frame
    return pl.concat([frame.slice(start, PORTION) for start in range(0, frame.height, PORTION)], rechunk=False)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """An empty database in memory, opened once: that takes longer than most checks."""
    connection = _sealed([])
    atexit.register(connection.close)  # or its Python functions are counted as leaked
    return connection


def _sealed(files: Iterable[Path]) -> duckdb.DuckDBPyConnection:
    """An empty database in memory that can read these files and reach nothing else."""
    connection = duckdb.connect(config=SEALED)
    connection.execute(f"set allowed_paths = [{', '.join(_quoted(str(file)) for file in files)}]")
    connection.execute("set enable_external_access = false")
    connection.create_function("digest", _digest, ["VARCHAR"], "VARCHAR", type=PythonUDFType.ARROW)
    return connection


def _digest(texts: Any) -> Any:  # of Arrow; DuckDB evaluates the types, and pyarrow is not imported for them
    """The sha256 of each text, as `sha256` in SQL but in less than half the CPU time: OpenSSL's; nulls never get here.

    One thread at a time: several would hand Python's lock to each other at every text, which takes longer than a text.
    """
    import pyarrow as pa

    with _DIGESTING:
        return pa.array([hashlib.sha256(text.as_buffer()).hexdigest() for text in texts], pa.string())


def _select(
    connection: duckdb.DuckDBPyConnection, contract: Contract, measures: Mapping[str, str], source: str
) -> "pd.DataFrame":
    """A column per measure; a ValueError names the test whose SQL DuckDB refuses."""
    try:
        selected = ", ".join(f'{sql} as "{name}"' for name, sql in measures.items())
        frame: pd.DataFrame = connection.sql(f"select {selected} {source}").df()
    except duckdb.Error as error:
        tests = [name for name in measures if name != ROWS]
        if len(tests) > 1:
            for test in tests:
                _select(
                    connection, contract, {name: measures[name] for name in measures if name in (ROWS, test)}, source
                )
        reason = " ".join(str(error).split())
        raise ValueError(f"{contract.table}.yml, test {', '.join(tests)}: {reason}; mend its SQL") from error
    return frame


def _examples(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, ...]:
    """The first column of a few rows of the query `sql`, cut short."""
    rows = connection.sql(f"select * from ({sql}\n) limit {EXAMPLES}").fetchall()
    return tuple(dict.fromkeys(str(row[0])[:EXAMPLE_CHARACTERS] for row in rows))


def columns_read(test: ContractTest, columns: Iterable[str]) -> list[str]:
    """Those of `columns` that the test reads."""
    read = " ".join([test.column or "", *test.arguments.get("columns", ()), test.arguments.get("sql", "")])
    return [name for name in columns if re.search(rf"\b{re.escape(name)}\b", read, re.IGNORECASE)]


def _holds(test: ContractTest) -> str:
    """True or false for each row: where the expression is null it does not hold."""
    return f"coalesce(({test.arguments['sql']}\n), false)"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
