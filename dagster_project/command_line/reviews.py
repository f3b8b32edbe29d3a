"""The command that shows what people have said of the rows they have read."""

from __future__ import annotations

import click

from dagster_project.command_line.terminal import as_text, main, own_documents, refuse, set_variables, table_columns
from dagster_project.settings import warehouse
from nift_assets import studies
from nift_assets.store import Store


@main.command("reviews")
@own_documents
@click.option("--csv", "as_csv", is_flag=True, help="Every verdict as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Every verdict as JSON.")
def reviews_(corpus: str | None, text_column: str | None, documents: str | None, as_csv: bool, as_json: bool) -> None:
    """What people have reviewed of the active study: how many rows, by whom and on what, and what waits for more."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        if as_csv and as_json:
            raise ValueError("--csv and --json are two ways to write the same; give one of them")
        study = studies.active()
        from dagster_project.command_line import reviews_table
        from nift_assets import reviews
        from nift_assets.steps import approvals

        store = Store(root=warehouse(), study=study.name)
        said = reviews.frame(reviews.read(store))
        if as_csv:
            click.echo(said.write_csv(), nl=False)
        elif as_json:
            click.echo(as_text(reviews_table.as_rows(said)))
        else:
            click.echo(reviews_table.render(study, store, said, approvals.of_study(study, store), table_columns()))
    except (ValueError, OSError) as error:
        refuse(str(error))
