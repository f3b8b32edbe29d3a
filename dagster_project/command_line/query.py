"""The command that asks the tables in SQL."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from dagster_project.command_line import result_rows
from dagster_project.command_line.terminal import columns, main, refuse, study_option
from dagster_project.settings import warehouse
from nift_assets import environment

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from dagster_project.command_line.result_rows import Format


@main.command()
@study_option
@click.argument("sql")
@click.option("--csv", "form", flag_value="csv", help="As CSV, which is what goes into a pipe in any case.")
@click.option("--json", "form", flag_value="json", help="As one list of JSON objects.")
@click.option("--jsonl", "form", flag_value="jsonl", help="As one JSON object per line.")
@click.option("--parquet", "form", flag_value="parquet", help="As a Parquet file, with --out.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a file, whole or not at all; its name says the format: .csv, .json, .jsonl or .parquet.",
)
def query(sql: str, form: Format | None, out: Path | None) -> None:
    """Ask the tables in SQL; - reads it from the standard input. A terminal shows some rows, a pipe gets them all.

    \b
    nift query "select teacher, count(*) from demo.completions group by all"
    nift query "from demo.filtered_completions" --out pairs.parquet
    """
    import duckdb

    from nift_assets import catalogue
    from nift_assets.store import Store

    try:
        root = Path(warehouse())
        if out:
            form = form or result_rows.format_of(out)
            if out.absolute().is_relative_to(root):
                raise ValueError(f"{out} lies among the tables of {root}; write it somewhere else")
        elif form == "parquet":
            raise ValueError("Parquet is a file and no text; say which with --out FILE")
        elif form is None and not sys.stdout.isatty():
            form = "csv"
        # Python takes for another encoding what a shell without a locale hands on, which is UTF-8 here.
        sql = os.fsencode(sys.stdin.read() if sql == "-" else sql).decode()
        with catalogue.opened(root, Store(root=str(root), study="").refresh_catalogue) as views:
            views.execute("set autoinstall_known_extensions = false")  # nothing is fetched without being asked for
            schema = _use_study(views, root)
            catalogue.check(root, sql, schema)
            _answer(views, sql, form, out)
    except (duckdb.Error, ValueError, OSError) as error:
        refuse(str(error))


def _use_study(views: DuckDBPyConnection, root: Path) -> str | None:
    """Lets the tables of the active study be named without it, where it has any."""
    from nift_assets import catalogue

    name = environment.study()
    if not (root / name).is_dir():
        from nift_assets import studies

        try:
            name = studies.active().name
        except ValueError:  # no study is needed to ask what lies there
            return None
    if name not in {study for study, _, _ in catalogue.tables(root)}:
        return None
    views.execute(f"set search_path = '\"{name}\"'")
    return name


def _answer(views: DuckDBPyConnection, sql: str, form: Format | None, out: Path | None) -> None:
    """Runs each statement, and shows or writes what those that are questions answer."""
    from duckdb import ExpectedResultType

    statements = views.extract_statements(sql)
    if not statements:
        raise ValueError("there is no statement; write one such as: select count(*) from completions")
    asking = [s for s in statements if s.expected_result_type == [ExpectedResultType.QUERY_RESULT]]
    if form and len(asking) != 1:
        raise ValueError(f"{len(asking)} of the statements give rows, and {form} is the rows of one")
    for statement in statements:
        if statement not in asking:
            views.execute(statement)
        else:
            _hand_on(views.sql(statement), views, form, out)


def _hand_on(rows: DuckDBPyRelation, views: DuckDBPyConnection, form: Format | None, out: Path | None) -> None:
    if form is None:
        if more := result_rows.show(rows, views, columns()):
            click.echo(more)
    elif out is None:
        result_rows.write_text(rows, form, _standard_output())
    else:
        click.echo(f"{result_rows.write_file(rows, form, out):,} rows: {out}", err=True)


def _standard_output() -> IO[str]:
    """The standard output as UTF-8 whatever the locale says, since CSV and JSON are."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    return sys.stdout
