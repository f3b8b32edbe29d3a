"""The circuit breaker: a server that fails again and again is asked by one request at a time, and then not at all."""

from __future__ import annotations

from typing import Literal

# So many failures in a row open the circuit; after so many probes in vain it is broken.
BREAK_AFTER, MOST_PROBES = 50, 8

BreakerVerdict = Literal["ignored", "counted", "probe", "broken"]


class CircuitBreaker:
    """Counts the failures in a row of one server. While it is open requests leave one by one, as probes.

    It owns that count and the count of probes in vain.
    """

    def __init__(self) -> None:
        self._failures = 0
        self.probes = 0

    @property
    def open(self) -> bool:
        return self.probes > 0

    def succeeded(self) -> None:
        """Closes the circuit."""
        self._failures = self.probes = 0

    def failed(self, *, first_try: bool, in_flight: int) -> BreakerVerdict:
        """Counts a failure: `probe` asks for a wait before the next request, `broken` for the end of the run.

        Only first tries count: that a request fails which failed before says little about the server.
        """
        if not self.open and not first_try:
            return "ignored"
        self._failures += 1
        if self._failures < BREAK_AFTER:
            return "counted"
        if self.open and in_flight > 1:
            return "counted"  # those that were under way when the circuit opened
        self.probes += 1
        return "broken" if self.probes > MOST_PROBES else "probe"
