"""The commands that make and show a study: demo, run, coverage, docs."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from dagster_project.command_line import known_names
from dagster_project.command_line.terminal import as_text, main, own_documents, refuse, set_variables, table_columns
from dagster_project.settings import dagster_home, existing_book, make_folder, take_over, warehouse
from nift_assets import environment

DEMO_BYTES = 250 * 2**20
# How a run ends that was stopped before everything was asked: at a cap, or by the provider (quota, key, model).
EXIT_BUDGET, EXIT_STOPPED = 4, 5


@main.command()
@own_documents
@click.option("--fresh", is_flag=True, help="Forget the tables of this study and start over; paid answers are kept.")
def demo(corpus: str | None, text_column: str | None, documents: str | None, fresh: bool) -> None:
    """Run the whole line of the active study and print its score table; what is up to date is used again."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        _run_study(fresh=fresh)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped; what was complete is kept, the same command goes on from there")


@main.command("run")
@click.argument("tables", nargs=-1, shell_complete=known_names.complete_table)
@click.option(
    "--partition",
    "chosen",
    multiple=True,
    shell_complete=known_names.complete_partition,
    help="Only this one's: a teacher, a model, …; repeatable.",
)
@click.option("--only", is_flag=True, help="Only these tables, made from what there is.")
@click.option("--scores", is_flag=True, help="Then the score tables and the report too, of what there is.")
@own_documents
def run_(
    tables: tuple[str, ...],
    chosen: tuple[str, ...],
    only: bool,
    scores: bool,
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
) -> None:
    """Make TABLES and all they are made from, where that is missing or out of date, and nothing else; without TABLES
    everything.

    \b
    nift run training_sets                          all data
    nift run filtered_completions --partition echo  one teacher's data set
    nift run table_1 --only                         one table, from the scores there are
    """
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        if (chosen or only or scores) and not tables:
            raise ValueError("--partition, --only and --scores are about tables; name them")
        _run_study(fresh=False, tables=tables, chosen=chosen, only=only, scores=scores)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped; what was complete is kept, the same command goes on from there")


@main.command()
@own_documents
@click.option(
    "--table",
    "tables",
    multiple=True,
    shell_complete=known_names.complete_paper_table,
    help="Only this table of the paper (table_1); repeatable.",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["present", "stale", "missing", "impossible"]),
    help="Only cells of this state; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def coverage(
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
    tables: tuple[str, ...],
    states: tuple[str, ...],
    as_json: bool,
) -> None:
    """Every cell of the study's tables: present, stale, missing or impossible, what fills it and what that costs."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from dagster_project.command_line import coverage_table
        from nift_assets import graph, studies
        from nift_assets.steps import coverage as covering
        from nift_assets.store import Store

        study = studies.active()

        take_over(study)
        store = Store(root=warehouse(), study=study.name)
        covered = covering.covered(graph.build(study), store, existing_book(), datetime.now(UTC).date())
        cells = coverage_table.chosen(covered, tables, states)
    except (ValueError, OSError) as error:
        refuse(str(error))
    click.echo(as_text(coverage_table.as_json(cells)) if as_json else coverage_table.render(cells))


@main.command()
@own_documents
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Where the page goes (default: beside the study's tables)."
)
def docs(corpus: str | None, text_column: str | None, documents: str | None, out: str | None) -> None:
    """Every table with its columns, its tests and their last results, as one page that needs no network."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        click.echo(f"Documentation: {_write_docs(out)}")
    except (ValueError, OSError) as error:
        refuse(str(error))


def _write_docs(out: str | None) -> Path:
    """The page of the contracts; without a Dagster instance it has no results, and none is made for it."""
    import dagster as dg

    from dagster_project.check_history import DOCS, contracts_page
    from nift_assets import studies
    from nift_assets.store import Store, replacing

    study = studies.active()
    store = Store(root=warehouse(), study=study.name)
    home = Path(os.environ.get("DAGSTER_HOME") or Path(".dagster", study.name)).absolute()
    if (home / "dagster.yaml").exists():
        os.environ["DAGSTER_HOME"] = str(home)  # its configuration names the variable
        with dg.DagsterInstance.get() as instance:
            content = contracts_page(study, store, instance)
    else:
        content = contracts_page(study, store, None)
    if out is None:
        return store.write_bytes(content, DOCS)
    with replacing(Path(out)) as temporary:
        temporary.write_bytes(content)
    return Path(out)


def _run_study(
    *,
    fresh: bool,
    tables: tuple[str, ...] = (),
    chosen: tuple[str, ...] = (),
    only: bool = False,
    scores: bool = False,
) -> None:
    """Everything of the active study or what it takes to have some tables of it, with a line per run as it starts and
    ends, then the scores where they were asked for."""
    from nift_assets import studies

    study = studies.active()
    home = dagster_home(study.name)
    # Imported now: Dagster takes half a second.
    import dagster as dg

    from dagster_project import lost_runs, run_study
    from dagster_project.command_line import run_progress, score_table, spent_table
    from nift_assets import corpus, graph
    from nift_assets.steps import tracking
    from nift_assets.store import Store
    from nift_training import file_locks

    if "://" in warehouse():
        raise ValueError(f"the warehouse is {warehouse()}, and weights need a local folder; set NIFT_WAREHOUSE to one")
    tracking.setting()
    built, store = graph.build(study), Store(root=warehouse(), study=study.name)
    if by_hand := [name for name in tables if name in built.tables and built.tables[name].by_hand]:
        raise ValueError(f"{by_hand[0]} is made by nift publish")
    next(corpus.read(study.corpus), None)  # what is wrong with a corpus mostly shows in its first row
    folder = store.folder()
    make_folder(Path(warehouse()), environment.WAREHOUSE)
    _check_disk(Path(warehouse()))
    path = Path(warehouse()) / f".{study.name}.lock"
    # Two commands never write the same tables.
    with file_locks.locked(path, f"another nift command is working on this study ({path}); wait until it ends"):
        if fresh:
            store.forget()
        with dg.DagsterInstance.get() as instance:
            lost_runs.mark_failed(instance, lost_runs.under_way(instance, lost_runs.COMMAND_TAG))
        click.echo(f"{study.title}: {study.corpus.location}")
        log = home / "demo.log"
        planned = run_study.runs(built)
        if tables:
            planned = run_study.needed(built, planned, tables, chosen, only=only, scores=scores)
        for line in run_study.damaged(planned, store):
            click.secho(f"        ! {line}", fg="yellow")
        take_over(study)
        for line in [
            *run_study.damaged_folders(built, planned, store, tables),
            *run_study.undecided(built, planned, store),
            *run_study.without_questions(built, planned, store),
        ]:
            click.secho(f"        ! {line}", fg="yellow")
        began, started_at = time.monotonic(), time.time()
        progress = run_progress.RunProgress(len(planned))
        try:
            outcomes = run_study.execute(
                planned, log=log, started=progress.started, ended=progress.ended, told=progress.told
            )
        finally:
            progress.close()
        store.remove_unnamed_folders()
    failed = {name: outcome.error for name, outcome in outcomes.items() if outcome.has_failed}
    awaited = [outcome.awaited for outcome in outcomes.values() if outcome.awaited]
    if (tables or awaited) and not failed:
        made = ", ".join(sorted(tables)) or "Every table"
        but = " but what waits for reviews" if awaited else ""
        click.echo(f"Done in {time.monotonic() - began:.0f} s{but}. {made}: nift look, or nift query")
    elif run_study.SCORES in outcomes and not outcomes[run_study.SCORES].error:
        click.echo()
        click.echo(score_table.render(study, store, table_columns()))
        if study.warning:
            click.secho(study.warning, bold=True)
        if environment.scale():
            with dg.DagsterInstance.get() as instance:
                click.echo(f"\n{spent_table.render(instance, built.tables, started_at, table_columns())}\n")
        took = f"{'Stopped after' if failed else 'Done in'} {time.monotonic() - began:.0f} s"
        click.echo(f"{took}. {where_to_read(folder)}")
    for reviews in awaited:
        click.secho(f"Waiting: {reviews}, then repeat this command", fg="yellow")
    if failed:
        left = len(planned) - len(outcomes)
        first, why = next(iter(failed.items()))
        stopped_by = outcomes[first].stopped_by
        code = EXIT_BUDGET if stopped_by == "budget" else EXIT_STOPPED if stopped_by else 1
        refuse(f"{first}: {why}" + (f" ({left} runs that depend on it were not started)" if left else ""), code)


def where_to_read(folder: Path) -> str:
    """Where a person reads what a study has in its folder: the report, if it was made, the tables and the lineage."""
    report = folder / "report.html"
    tables = f"Every table: nift query 'select * from \"{folder.name}\".halves'. Lineage: nift ui"
    return f"Report: {report}\n{tables}" if report.exists() else tables


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < DEMO_BYTES:
        raise OSError(
            f"{folder}: {free / 2**20:,.0f} MB are free and about {DEMO_BYTES / 2**20:,.0f} MB are needed; free some "
            "space or set NIFT_WAREHOUSE to a folder on a larger disk"
        )
