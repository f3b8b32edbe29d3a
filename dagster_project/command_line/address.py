"""Where a command serves its pages: the options that say so, and the address they come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nift_assets import environment

if TYPE_CHECKING:
    from dagster_project.ui.gate import UiAddress


def address_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that serves pages: its port, its host and the names a proxy gives it."""
    for option in (
        click.option("--name", "names", multiple=True, help="A host name a reverse proxy passes on; repeatable."),
        click.option(
            "--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with NIFT_UI_TOKEN set."
        ),
        click.option("--port", type=int, help="The port to listen on (default: the first free one from 3000)."),
    ):
        command = option(command)
    return command


def address_of(host: str, port: int | None, names: tuple[str, ...]) -> UiAddress:
    """The address with its token, which is made where none is set. ValueError for one that is open to others."""
    from dagster_project.ui.gate import UiAddress
    from nift_assets.secrets import keys

    token = None if environment.ui_asks_for_no_token() else keys.read(environment.UI_TOKEN)
    address = UiAddress(host=host, port=port, names=names, token=token)
    address.refuse_unsafe()
    return address if environment.ui_asks_for_no_token() else address.with_token()
