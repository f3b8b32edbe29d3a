"""What serves pages to a person: a socket of this machine, and a server on it that ends in order."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from dagster_project.ui.gate import UiAddress

FIRST_PORT, MOST_PORTS = 3000, 1000
# What a stop waits for at most for pages that are open.
PAGES_SECONDS = 2


class PageServer(uvicorn.Server):
    """Uvicorn's server, which says when it can be asked and when it is stopping."""

    def __init__(self, app: Any, ready: Callable[[], None], stopping: Callable[[], None] | None = None) -> None:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=PAGES_SECONDS, lifespan="off")
        super().__init__(config)
        self._ready, self._stopping = ready, stopping
        self.was_stopped = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._stopping and not self.was_stopped:
            # Not here, in the middle of whatever the signal has come into.
            threading.Thread(target=self._stopping, daemon=True).start()
        self.was_stopped = True
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without uvicorn's raising the signal once more at the end: what follows is ours to end in order."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            # A second Ctrl-C may not leave behind what the first is ending.
            for number in before:
                signal.signal(number, signal.SIG_IGN)


@contextmanager
def listening(address: UiAddress) -> Iterator[socket.socket]:
    """The socket of an address; without a port that of the first from 3000 that nobody has."""
    ports = [address.port] if address.port is not None else range(FIRST_PORT, FIRST_PORT + MOST_PORTS)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    for port in ports:
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((address.host, port))
            bound.listen(128)
        except OSError as error:
            bound.close()
            failed = error
            continue
        with bound:
            yield bound
        return
    raise ValueError(f"{address.host}:{ports[-1]} cannot be listened on ({failed.strerror}); name a port with --port")
