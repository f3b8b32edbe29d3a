"""The commands that list what there is: studies, the tables of one with what is stored of them, and its teachers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_project.command_line import known_names
from dagster_project.command_line.terminal import as_text, main, own_documents, refuse, set_variables, table_columns
from dagster_project.settings import warehouse
from nift_assets import environment

if TYPE_CHECKING:
    from nift_assets.steps.lineage import Graph
    from nift_assets.store import Store

# The columns that say what something is, and name nothing that anybody would copy.
PROSE = ("title", "what")

as_json_option = click.option("--json", "as_json", is_flag=True, help="The same as JSON.")


@main.command("studies")
@as_json_option
def studies_(as_json: bool) -> None:
    """The studies that come with it: choose one with --study NAME, or your own with --study FILE.py."""
    try:
        from nift_assets import studies

        listed = [{"study": name, **_sizes(studies.load(name))} for name in studies.names()]
        chosen = environment.study()
        if chosen not in studies.names():
            listed.append({"study": chosen, **_sizes(studies.load(chosen))})
    except (ValueError, OSError) as error:
        refuse(str(error))
    _show(listed, as_json)


@main.command()
@own_documents
@click.argument("table", required=False, shell_complete=known_names.complete_table)
@as_json_option
def tables(
    table: str | None, as_json: bool, corpus: str | None, text_column: str | None, documents: str | None
) -> None:
    """The tables of the active study and how much is stored of each; of one TABLE, its partitions."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from nift_assets import graph, studies
        from nift_assets.near_names import near
        from nift_assets.store import Store

        study = studies.active()
        built, store = graph.build(study), Store(root=warehouse(), study=study.name)
        if table is None:
            listed = [_table(built, store, name) for name in built.tables]
        elif table in built.tables:
            listed = [_partition(built, store, table, key) for key in _wanted(built, table)]
        else:
            raise ValueError(
                f"there is no table {table!r}; nift tables lists those of {study.name!r}{near(table, built.tables)}"
            )
    except (ValueError, OSError) as error:
        refuse(str(error))
    _show(listed, as_json)


@main.command()
@own_documents
@as_json_option
def teachers(as_json: bool, corpus: str | None, text_column: str | None, documents: str | None) -> None:
    """The teachers of the active study: who answers, what is dropped, and what is stored of their answers."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from nift_assets import studies
        from nift_assets.store import Store

        study = studies.active()
        store = Store(root=warehouse(), study=study.name)
        listed = [
            {
                "teacher": teacher.name,
                "provider": teacher.provider,
                "model": teacher.model,
                "server": teacher.base_url,
                "documents": teacher.documents or "all",
                "filters": ", ".join(teacher.filters) or None,
                "answers": _answers(store, teacher.name),
                "kept": _rows(store, "filtered_completions", teacher.name),
            }
            for teacher in study.teachers
        ]
    except (ValueError, OSError) as error:
        refuse(str(error))
    _show(listed, as_json)


def _sizes(study: Any) -> dict[str, Any]:
    return {
        "corpus": study.corpus.location if "://" in study.corpus.location else Path(study.corpus.location).name,
        "documents": study.corpus.documents or "all",
        "teachers": len(study.teachers),
        "training_sets": len(study.training_sets),
        "models": len(study.models),
        "benchmarks": len(study.benchmarks),
        "title": study.title,
    }


def _table(graph: Graph, store: Store, table: str) -> dict[str, Any]:
    from expectations import contract

    keys = _wanted(graph, table)
    rows = [_rows(store, table, key) for key in keys]
    made = [count for count in rows if count is not None]
    return {
        "table": table,
        "one per": graph.tables[table].partitions,
        "made": f"{len(made)} of {len(keys)}",
        "rows": sum(count for count in made if isinstance(count, int)) if made else None,
        "what": " ".join(contract.load(table).description.split()).split(". ")[0],
    }


def _partition(graph: Graph, store: Store, table: str, key: str | None) -> dict[str, Any]:
    path = store.path(table, key)
    return {
        "partition": key or "(the whole table)",
        "rows": _rows(store, table, key),
        "bytes": path.stat().st_size if path.exists() else None,
    }


def _wanted(graph: Graph, table: str) -> list[str | None]:
    return [key for key in graph.keys(table) if graph.partitions.is_wanted(table, key)]


def _rows(store: Store, table: str, key: str | None) -> int | str | None:
    from nift_assets.table_files import DamagedTable

    try:
        return store.rows(table, key)
    except DamagedTable:
        return "damaged"


def _answers(store: Store, teacher: str) -> str | None:
    from nift_assets.table_files import DamagedTable

    try:
        found = store.find("completions", teacher, ["status"])
    except DamagedTable:
        return "damaged"
    if found is None:
        return None
    return ", ".join(f"{count:,} {status}" for status, count in Counter(found["status"]).most_common())


def _show(listed: list[dict[str, Any]], as_json: bool) -> None:
    """One line per row where the terminal is wide enough: descriptions give way first."""
    from dagster_project.command_line import text_table

    if as_json:
        click.echo(as_text(listed))
        return
    names = [name for name in listed[0] if any(row[name] is not None for row in listed)] if listed else []
    rows = [[_cell(row[name]) for name in names] for row in listed]
    click.echo(text_table.table(names, rows, table_columns(), prose=PROSE))


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
