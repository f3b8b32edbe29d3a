"""The command that holds two states of a study's tables against each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.command_line import known_names
from dagster_project.command_line.terminal import as_text, main, printable, refuse, study_option, table_columns
from dagster_project.settings import existing_book, warehouse
from nift_assets import environment

if TYPE_CHECKING:
    from dagster_project.command_line.differences_table import Differences
    from nift_assets.differences.comparison import Comparison
    from nift_assets.differences.states import Hold, StudyState


# All of them are what --out is for.
MOST_TEXTS = 1_000


@main.command()
@study_option
@click.argument("before")
@click.argument("after", required=False)
@click.option(
    "--table",
    "tables",
    multiple=True,
    shell_complete=known_names.complete_table,
    help="Only this table's rows, each partition of it; repeatable.",
)
@click.option(
    "--texts",
    type=click.IntRange(0, MOST_TEXTS),
    default=3,
    show_default=True,
    help="How many changed texts to show of a table; 0 for none.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write every row that differs, with its reason, to a file: .csv, .json, .jsonl or .parquet.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the two differ.")
def diff(
    before: str,
    after: str | None,
    tables: tuple[str, ...],
    texts: int,
    as_json: bool,
    out: Path | None,
    exit_code: bool,
) -> None:
    """What differs between two states of a study: rows with the reason, texts, the funnel, scores, dollars.

    A state is a study of the warehouse, the folder of another warehouse or of a study in it, or a data set that was
    published, hf://datasets/owner/name@revision. Without AFTER it is what the active study holds now.

    \b
    nift diff /mnt/copies/warehouse-of-monday
    nift diff hf://datasets/me/nift-echo@data-0123 hf://datasets/me/nift-echo
    """
    import duckdb

    try:
        from dagster_project.command_line import differences_table
        from nift_assets import studies
        from nift_assets.differences import comparison

        if out:
            _refuse_place(out)
        # Own benchmarks and contracts are known once the study beside which they lie is loaded; one that cannot be is
        # compared by what the package knows.
        with suppress(ValueError):
            studies.active()
        with ExitStack() as held:
            first, second = _states(before, after, held.enter_context)
            compared = held.enter_context(comparison.opened(first, second))
            found = _found(compared, tables, texts)
            if out:
                _write(compared, out)
    except (ValueError, OSError, duckdb.Error) as error:
        refuse(str(error))
    if as_json:
        click.echo(as_text(differences_table.as_json(found)))
    else:
        click.echo(printable(differences_table.render(found, table_columns())))
    sys.exit(int(exit_code and not found.are_same))


def _states(before: str, after: str | None, hold: Hold) -> tuple[StudyState, StudyState]:
    """The two states that are named. Where one is published, the other is shown as it would be."""
    first = _state(before, hold)
    second = _now(first, hold) if after is None else _state(after, hold)
    if first.root is not None and (first.root, first.study) == (second.root, second.study):
        raise ValueError(f"{first.name} is one state; name a copy of its tables, another study or what was published")
    if first.teacher and not second.teacher:
        return first, _as_published(second, first)
    if second.teacher and not first.teacher:
        return _as_published(first, second), second
    return first, second


def _state(argument: str, hold: Hold) -> StudyState:
    from nift_assets.differences import states
    from nift_assets.hub import published

    if argument.startswith(published.ADDRESS):
        return published.fetched(argument)
    if "://" in argument:
        raise ValueError(f"{argument} is no folder of this machine; copy it here, and name the copy")
    return states.named(argument, _root(), _active, hold)


def _now(first: StudyState, hold: Hold) -> StudyState:
    """What the warehouse holds of the study of another state or, where that lies in it as well, of the active one."""
    from nift_assets.differences import states

    root = _root()
    elsewhere = first.root != root and first.study in states.studies_in(root)
    return states.of_warehouse(root, first.study if elsewhere else _active(), hold)


def _as_published(state: StudyState, like: StudyState) -> StudyState:
    """What a data set of the same teacher would hold. ValueError where the state has none of that teacher."""
    shown = state.as_published(
        str(like.teacher), [key for table, key in like.files if table == "training_sets" and key]
    )
    if not shown.files:
        raise ValueError(
            f"{like.name} is what {like.teacher!r} wrote in the study {like.study!r}, of which {state.name} holds "
            "nothing; name the state to compare it with"
        )
    return shown


def _root() -> Path:
    root = warehouse()
    if "://" in root:
        raise ValueError(f"the warehouse is {root}, and only folders are compared; copy it here and set NIFT_WAREHOUSE")
    return Path(root)


def _active() -> str:
    """The name of the active study, which need not be one that can still be loaded."""
    from nift_assets import studies
    from nift_assets.differences import states

    name = environment.study()
    return name if name in states.studies_in(_root()) else studies.active().name


def _found(compared: Comparison, tables: Sequence[str], texts: int) -> Differences:
    from dagster_project.command_line.differences_table import Differences
    from nift_assets.differences import funnels, score_differences
    from nift_assets.near_names import near

    known = {table for table, _ in compared.places()}
    if unknown := [table for table in tables if table not in known]:
        raise ValueError(f"neither state has a table {unknown[0]!r}{near(unknown[0], known)}")
    places = compared.places(tables)
    rows = [compared.of(place) for place in places]
    differing = [place for place, found in zip(places, rows, strict=True) if found.changed]
    both = compared.before, compared.after
    return Differences(
        before=compared.before.name,
        after=compared.after.name,
        rows=rows,
        texts={place: list(compared.changed_texts(place, texts)) for place in differing} if texts else {},
        funnel=[] if tables else funnels.compare(*both),
        scores=[] if tables else score_differences.compare(*both),
        dollars=(None, None) if tables else (_spent(both[0]), _spent(both[1])),
        named=tables,
        unknown=sorted({*both[0].unknown, *both[1].unknown}),
    )


def _spent(state: StudyState) -> dict[str, float] | None:
    """What the ledger beside a state says that its study has spent; None where there is no ledger."""
    from nift_assets.differences import spendings

    if state.root == _root() and environment.ledger_url():
        book = existing_book()
        return spendings.of_book(book, state.study) if book else None
    if state.root is None or not (state.root / "ledger.sqlite").exists():
        return None
    return spendings.of_file(state.root / "ledger.sqlite", state.study)


def _refuse_place(out: Path) -> None:
    from dagster_project.command_line import result_rows

    result_rows.format_of(out)
    if out.absolute().is_relative_to(_root()):
        raise ValueError(f"{out} lies among the tables of {_root()}; write it somewhere else")


def _write(compared: Comparison, out: Path) -> None:
    from dagster_project.command_line import result_rows

    written = result_rows.write_file(compared.differing(), result_rows.format_of(out), out)
    click.echo(f"{written:,} rows: {out}", err=True)
