"""The command that opens the viewer."""

from __future__ import annotations

import click

from dagster_project.command_line.terminal import main, own_documents, refuse, set_variables
from dagster_project.settings import warehouse
from nift_assets import environment, studies
from nift_assets.secrets import keys
from nift_assets.store import Store


@main.command()
@own_documents
@click.option("--port", type=int, help="The port to listen on (default: the first free one from 3000).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with NIFT_UI_TOKEN set.")
@click.option("--name", "names", multiple=True, help="A host name a reverse proxy passes on; repeatable.")
def look(
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
    port: int | None,
    host: str,
    names: tuple[str, ...],
) -> None:
    """Read the rows of the active study in a browser: pairs, answers, what was left out, every table."""
    set_variables(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        study = studies.active()
        if not Store(root=warehouse(), study=study.name).folder().exists():
            raise ValueError(
                f"nothing of the study {study.name} is stored under {warehouse()}; `nift demo` or `nift run` makes "
                "some of it, NIFT_STUDY and NIFT_WAREHOUSE name another"
            )
        from dagster_project.ui import look_server
        from dagster_project.ui.gate import UiAddress

        token = None if environment.ui_asks_for_no_token() else keys.read(environment.UI_TOKEN)
        address = UiAddress(host=host, port=port, names=names, token=token)
        address.refuse_unsafe()
        if not environment.ui_asks_for_no_token():
            address = address.with_token()
        look_server.serve(study, address, lambda url: click.echo(f"Rows of {study.name}: {url} (stop with Ctrl-C)"))
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped while starting")
