"""The command that opens Dagster's UI."""

from __future__ import annotations

import click

from dagster_project.command_line.terminal import main, own_documents, refuse, set_variables
from dagster_project.settings import dagster_home, take_over
from nift_assets import environment


@main.command()
@own_documents
@click.option("--port", type=int, help="The port to listen on (default: the first free one from 3000).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with NIFT_UI_TOKEN set.")
@click.option("--name", "names", multiple=True, help="A host name a reverse proxy passes on; repeatable.")
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
        from dagster_project.ui.gate import UiAddress
        from nift_assets import studies
        from nift_assets.secrets import keys

        token = None if environment.ui_asks_for_no_token() else keys.read(environment.UI_TOKEN)
        address = UiAddress(host=host, port=port, names=names, token=token)
        address.refuse_unsafe()
        if not environment.ui_asks_for_no_token():
            address = address.with_token()
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
