"""The commands about money: what a study will cost, and what has been asked and paid."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from dagster_project.command_line.terminal import (
    as_text,
    columns,
    main,
    own_documents,
    refuse,
    set_variables,
    table_columns,
)
from dagster_project.settings import existing_book, ledger_url, open_book, warehouse


@main.command()
@own_documents
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--check", is_flag=True, help="Exit with 3 if a model has ended, has no price or costs more than a cap.")
def plan(corpus: str | None, text_column: str | None, documents: str | None, as_json: bool, check: bool) -> None:
    """What the active study's teachers, judges and auditors have still to be asked, and its cost; asks nobody."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from dagster_project.command_line import plan_table
        from nift_assets import studies
        from nift_assets.costs import plan as planning
        from nift_assets.store import Store

        study = studies.active()
        store = Store(root=warehouse(), study=study.name)
        result = planning.plan(study, store=store, book=existing_book(), today=datetime.now(UTC).date())
    except (ValueError, OSError) as error:
        refuse(str(error))
    click.echo(as_text(plan_table.as_json(result)) if as_json else plan_table.render(result, columns()))
    if check and result.stopped():
        sys.exit(3)


@main.group(invoke_without_command=True)
@click.option("--study", help="Only this study (default: all).")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option(
    "--ask-unknown-again",
    is_flag=True,
    help="Book every unknown attempt as spent, also where its question has been answered since; the next run asks "
    "again what is still without an answer.",
)
@click.option(
    "--not-billed",
    is_flag=True,
    help="With --ask-unknown-again: free the unknown attempts instead of booking them as spent. Only after the "
    "provider's usage page has shown that none of those listed was billed.",
)
@click.option("--who", help="Only this teacher's or judge's, with --ask-unknown-again.")
@click.pass_context
def ledger(
    context: click.Context, study: str | None, as_json: bool, ask_unknown_again: bool, not_billed: bool, who: str | None
) -> None:
    """What has been asked, what became of it, what it cost, and what nobody knows the end of."""
    if context.invoked_subcommand:
        return
    try:
        from dagster_project.command_line import plan_table
        from nift_assets.ledger import report as ledger_report

        if who and not ask_unknown_again:
            raise ValueError("--who chooses whose unknown requests are asked again; give --ask-unknown-again with it")
        if not_billed and not ask_unknown_again:
            raise ValueError("--not-billed says how unknown requests are released; give --ask-unknown-again with it")
        if ask_unknown_again:
            released = ledger_report.ask_unknown_again(open_book(), study=study, who=who, not_billed=not_billed)
            amount = f"${(released.written_off + released.freed) / 1e9:,.4f} of {released.attempts:,} attempts"
            cost = f"{amount} are free again" if not_billed else f"{amount} are booked as spent"
            click.echo(f"{released.questions:,} questions are asked again by the next run; {cost}.", err=as_json)
        book = existing_book()
        report = (
            ledger_report.report(book, study=study)
            if book
            else ledger_report.Report(accounts=(), totals={}, lost=(), batches=())
        )
        caps = _caps([*report.totals, *(account.study for account in report.accounts)])
    except (ValueError, OSError) as error:
        refuse(str(error))
    shown = plan_table.render_ledger(report, caps, table_columns())
    click.echo(as_text(plan_table.ledger_as_json(report, caps)) if as_json else shown)


@ledger.command()
@click.argument("path", type=click.Path(path_type=Path))
def backup(path: Path) -> None:
    """Copies the ledger to PATH, a new file or a folder; whole and checked, also while it is used."""
    from nift_assets.ledger import backups

    try:
        click.echo(f"{backups.backup(ledger_url(warehouse()), path)} is a whole copy of the ledger.")
    except (ValueError, OSError) as error:
        refuse(str(error))


@ledger.command()
@click.argument("path", type=click.Path(path_type=Path))
def restore(path: Path) -> None:
    """Puts the backup at PATH in the ledger's place; the one before is kept beside it."""
    from nift_assets.ledger import backups

    try:
        restored = backups.restore(ledger_url(warehouse()), path)
    except (ValueError, OSError) as error:
        refuse(str(error))
    kept = f"; the one before lies at {restored.replaced}" if restored.replaced else ""
    click.echo(f"The ledger holds {restored.answers:,} answers{kept}. What it lacks is asked and paid again.")


@ledger.command()
def check() -> None:
    """Reads the whole ledger, and exits with 1 where something in it is not what was stored."""
    from nift_assets.ledger import backups

    try:
        checkup = backups.check(ledger_url(warehouse()))
    except (ValueError, OSError) as error:
        refuse(str(error))
    for sentence in checkup.wrong:
        click.echo(sentence)
    for key in checkup.damaged.values():
        click.echo(f"the answer {key} is not what was stored")
    click.echo(f"{checkup.answers:,} answers: {len(checkup.damaged):,} damaged, {checkup.lost:,} lost.")
    if not checkup.whole:
        sys.exit(1)


@ledger.command()
def accept() -> None:
    """Lets what is whole of a damaged or shortened ledger count from now on; what is lost is asked and paid again."""
    from nift_assets.ledger import backups

    try:
        checkup = backups.accept(ledger_url(warehouse()))
    except (ValueError, OSError) as error:
        refuse(str(error))
    whole = checkup.answers - len(checkup.damaged)
    click.echo(f"The ledger goes on with {whole:,} answers. What it lacks is asked and paid again.")


def _caps(names: list[str]) -> dict[tuple[str, str], float | None]:
    """The caps of the studies of those names that can be found here, and of their rows, in dollars."""
    from nift_assets import studies
    from nift_assets.costs import price_list

    active = studies.active()
    studies_by_name = {name: studies.load(name) for name in {*names} & {*studies.names()}} | {active.name: active}
    caps: dict[tuple[str, str], float | None] = {}
    for study in studies_by_name.values():
        caps[study.name, ""] = price_list.budget(study)
        caps |= {(study.name, row.name): row.budget_usd for row in study.language_models}
    return caps
