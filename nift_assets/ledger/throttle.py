"""How fast one run asks: what it has heard and learned of the server's limits, and when its next request may leave."""

from __future__ import annotations

from nift_assets.ledger.book import ExchangeResult
from nift_assets.ledger.pace import Pace
from nift_assets.ledger.rate_limiter import LimitObservations
from nift_assets.protocol.server import Quota
from nift_assets.rows import Limits


class Throttle:
    """One run's side of the shared rate limiter.

    It owns the window, the moment before which nothing leaves, and what was observed since the last exchange.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pace = Pace(limits.in_flight)
        self._quotas: list[Quota] = []
        self._gate_seconds: float | None = None
        self._learned: float | None = None
        self._rate_limited = False
        self._last_through: float | None = None
        self.not_before = 0.0

    @property
    def window(self) -> int:
        """How many requests may be in flight."""
        return int(self._pace.window)

    def delay(self, until: float) -> None:
        """Lets nothing leave before a moment."""
        self.not_before = until

    def observed(self, now: float) -> LimitObservations:
        """What the shared limiter has to be told."""
        return LimitObservations(
            requests_per_minute=self._limits.requests_per_minute,
            tokens_per_minute=self._limits.tokens_per_minute,
            quotas=self._quotas,
            learned=self._pace.learned(now, self._learned, rate_limited=self._rate_limited),
            gate_seconds=self._gate_seconds,
        )

    def exchanged(self, now: float, exchanged: ExchangeResult, *, asked: bool) -> None:
        """Takes over what the shared limiter says; `asked` is whether any request wanted to leave."""
        self._quotas, self._gate_seconds = [], None
        self._pace.sent(now, len(exchanged.numbers))
        self._learned = exchanged.learned
        if asked:
            self._rate_limited = exchanged.rate_limited
            self.not_before = now + exchanged.wait

    def heard(self, quota: Quota) -> None:
        """Takes what the headers of a response state of the limits."""
        self._quotas.append(quota)

    def close_gate(self, seconds: float) -> None:
        """The server itself says that nobody gets through for so long."""
        self._gate_seconds = max(self._gate_seconds or 0.0, seconds)

    def came_through(self, now: float) -> None:
        self._last_through = now
        self._pace.came_through(now)

    def turned_away(self, now: float, left_at: float) -> float:
        """Counts a request that was turned away (429); the seconds since one last came through."""
        self._pace.turned_away(now, left_at)
        self._last_through = self._last_through if self._last_through is not None else now
        return now - self._last_through

    def overloaded(self, now: float) -> None:
        self._pace.overloaded(now)
