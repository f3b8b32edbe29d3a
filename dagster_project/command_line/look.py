"""The command that opens the viewer."""

from __future__ import annotations

import click

from dagster_project.command_line.address import address_of, address_options
from dagster_project.command_line.terminal import main, own_documents, refuse, set_variables
from dagster_project.settings import warehouse
from nift_assets import studies
from nift_assets.store import Store


@main.command()
@own_documents
@address_options
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

        address = address_of(host, port, names)
        look_server.serve(study, address, lambda url: click.echo(f"Rows of {study.name}: {url} (stop with Ctrl-C)"))
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped while starting")
