"""The viewer of one study by itself: behind the same gate as Dagster's UI, without Dagster."""

from __future__ import annotations

import signal
from collections.abc import Callable

from starlette.applications import Starlette

from dagster_project.settings import warehouse
from dagster_project.ui.gate import Gate, UiAddress
from dagster_project.ui.listening import PageServer, listening
from dagster_project.ui.look import Look
from nift_assets.pages.viewer import links
from nift_assets.study import Study


def serve(study: Study, address: UiAddress, say: Callable[[str], None]) -> None:
    """The viewer until Ctrl-C or SIGTERM. It only reads, so there may be any number of them."""
    with listening(address) as bound:
        # A shell starts background jobs with Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        look = Look(lambda: study, warehouse())
        look.open()
        gate = Gate(Starlette(routes=look.routes()), names=(address.host, *address.names), token=address.token)
        url = address.url(bound.getsockname()[1]).replace("/?token=", f"{links.ROOT}?token=")
        PageServer(gate, lambda: say(url if address.token else url + links.ROOT)).run(sockets=[bound])
