"""The command that holds what is stored against its contract."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dagster_project.command_line import text_table
from dagster_project.command_line.terminal import as_text, columns, main, refuse, table_columns
from dagster_project.settings import warehouse
from nift_assets import studies
from nift_assets.near_names import near
from nift_assets.store import Store

if TYPE_CHECKING:
    import polars as pl

    from expectations.runner import ExpectationResult
    from nift_assets.checks import CheckedPartition
    from nift_assets.steps.lineage import Graph, Partition

FIRST_ROWS = 3
CELL = 60


@main.command()
@click.argument("table")
@click.option("--partition", "chosen", multiple=True, help="Only this one's: a teacher, a model, …; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, with the first failing rows whole.")
def check(table: str, chosen: tuple[str, ...], as_json: bool) -> None:
    """Hold what is stored of TABLE against its contract; makes nothing, ends with 1 if a test that may not fail does.

    \b
    nift check completions --partition echo
    """
    try:
        from nift_assets import checks, graph

        study = studies.active()
        built, store = graph.build(study), Store(root=warehouse(), study=study.name)
        partitions = _partitions(built, store, table, chosen)
        checked = [checks.check_stored(built, store, partition) for partition in partitions]
    except (ValueError, OSError) as error:
        refuse(str(error))
    if as_json:
        click.echo(as_text([_as_json(each) for each in checked]))
    else:
        click.echo("\n\n".join(map(_rendered, checked)))
    sys.exit(int(any(each.failed for each in checked)))


def _partitions(graph: Graph, store: Store, table: str, chosen: Sequence[str]) -> list[Partition]:
    """The stored partitions of a table, or those that were named. ValueError for what the study does not have."""
    from nift_assets.steps.lineage import Partition

    if table not in graph.tables:
        raise ValueError(f"there is no table {table!r}{near(table, graph.tables) or '; nift docs lists them'}")
    keys = graph.keys(table)
    if unknown := [key for key in chosen if key not in keys]:
        if keys == [None]:
            raise ValueError(f"{table} has no partitions; leave --partition out")
        named = [str(key) for key in keys]
        hint = near(unknown[0], named) or "; nift coverage lists them"
        raise ValueError(f"{table} has no partition {unknown[0]!r}{hint}")
    if chosen:
        return [Partition(table, key) for key in dict.fromkeys(chosen)]
    stored = [Partition(table, key) for key in keys if store.path(table, key).exists()]
    if not stored:
        raise ValueError(f"{table} has not been made yet, so there is nothing to check; nift run {table} makes it")
    return stored


def _rendered(checked: CheckedPartition) -> str:
    """A line per test, then the first rows that fail each."""
    rows = checked.results[0].rows if checked.results else 0
    complaints = [result for result in checked.results if not result.passed]
    verdict = f"{len(checked.results)} tests, {len(checked.results) - len(complaints)} passed"
    lines = [f"{checked.partition}: {rows:,} rows, {verdict}", ""]
    lines += text_table.aligned([_line(result) for result in checked.results], table_columns())
    for result in complaints:
        if result.name in checked.failing:
            failing = checked.failing[result.name]
            shown = min(FIRST_ROWS, failing.height)
            lines += ["", f"{result.name}, the first {shown} that fail:", *_first(failing)]
    return "\n".join(lines)


def _line(result: ExpectationResult) -> list[str]:
    mark = "✓" if result.passed else ("✗" if result.severity == "error" else "!")
    return [mark, result.name, _on_a_line(result.message, max(CELL, columns() - 50))]


def _first(rows: pl.DataFrame) -> list[str]:
    """Each row as its columns below each other: a table of texts is as wide as its widest text."""
    lines = []
    for number, row in enumerate(rows.head(FIRST_ROWS).iter_rows(named=True)):
        lines += [""] if number else []
        lines += [
            f"  {name:24} {_on_a_line(str(value), max(CELL, columns() - 30))}"
            for name, value in row.items()
            if value is not None
        ]
    return lines


def _on_a_line(text: str, most: int) -> str:
    """Without what would move the cursor or colour the terminal: the texts are from the web."""
    line = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return line if len(line) <= most else line[:most] + " …"


def _as_json(checked: CheckedPartition) -> dict[str, Any]:
    return {
        "table": checked.partition.table,
        "partition": checked.partition.key,
        "passed": not checked.failed,
        "tests": [
            {
                "test": result.name,
                "passed": result.passed,
                "severity": result.severity,
                "description": result.description,
                "message": result.message,
                "rows": result.rows,
                "failing": result.failing,
                "share": result.share,
                "failing_rows": _plain(checked.failing[result.name]) if result.name in checked.failing else [],
            }
            for result in checked.results
        ],
    }


def _plain(rows: pl.DataFrame) -> list[dict[str, Any]]:
    import json

    found: list[dict[str, Any]] = json.loads(rows.head(FIRST_ROWS).write_json())
    return found
