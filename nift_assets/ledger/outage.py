"""A server that is away: since when it has answered nothing, and the one sentence that says what is waited for."""

from __future__ import annotations

from collections.abc import Collection

from nift_assets.ledger.in_flight import Attempt

# What a restart of a connection takes is no outage.
SILENT_SECONDS = 3.0


class Outage:
    """Whether one server is away. It owns since when nothing has come through, why the last attempt failed, and
    whether that has been said."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._since: float | None = None
        self._why = ""
        self._is_said = False

    def failed(self, now: float, why: str) -> None:
        """An attempt was in vain."""
        self._since = now if self._since is None else self._since
        self._why = why

    def succeeded(self) -> None:
        """The server answers, if only that it wants fewer requests."""
        self._since = None

    def news(self, now: float, in_flight: Collection[Attempt], longest: float) -> str | None:
        """What is waited for and for how long, once, and that it is over, once; None in between. A server that has a
        request may be writing its answer, however long that takes."""
        is_asked = any(attempt.on_the_wire for attempt in in_flight)
        if self._is_said:
            if self._since is not None or (in_flight and not is_asked):
                return None
            self._is_said = False
            return f"{self._url} is back"
        since = min((attempt.left_at for attempt in in_flight), default=None) if self._since is None else self._since
        if is_asked or since is None or now - since < SILENT_SECONDS:
            return None
        self._is_said = True
        why = "there is no connection yet" if self._since is None else self._why
        return (
            f"{self._url} does not answer ({why[:200]}); it is asked again for {_span(longest)} or until it is back, "
            "and what was answered is kept"
        )


def _span(seconds: float) -> str:
    return f"about {seconds / 60:.0f} minutes" if seconds >= 90 else f"about {seconds:.0f} seconds"
