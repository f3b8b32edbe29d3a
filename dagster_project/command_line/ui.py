"""The command that opens Dagster's UI."""

from __future__ import annotations

import click

from dagster_project.command_line.address import address_of, address_options
from dagster_project.command_line.terminal import main, own_documents, refuse, set_variables
from dagster_project.settings import dagster_home, take_over


@main.command()
@own_documents
@address_options
def ui(
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
    port: int | None,
    host: str,
    names: tuple[str, ...],
) -> None:
    """Open Dagster's UI of the active study, for this machine only unless told otherwise."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from nift_assets import studies

        address = address_of(host, port, names)
        study = studies.active()
        home = dagster_home(study.name)
        take_over(study)
        from dagster_project.ui import launcher

        click.echo(f"Starting Dagster (instance in {home}, its log in {launcher.LOG} there) …")
        launcher.serve(home, address, lambda url: click.echo(f"Dagster's UI: {url} (stop with Ctrl-C)"), click.echo)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped while starting")
