"""Whether and when a request is sent again after an attempt that brought no answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sized
from dataclasses import replace

from nift_assets.ledger.book import Asker, AttemptResult
from nift_assets.ledger.circuit_breaker import BREAK_AFTER, MOST_PROBES, CircuitBreaker
from nift_assets.ledger.connection import asked_wait
from nift_assets.ledger.in_flight import Attempt
from nift_assets.ledger.outage import Outage
from nift_assets.ledger.progress import Stop
from nift_assets.ledger.rate_limiter import MOST_WAIT
from nift_assets.ledger.request_queue import QueuedRequest, RequestQueue
from nift_assets.ledger.throttle import Throttle
from nift_assets.protocol.server import Remote
from nift_assets.rows import Limits

# A 5xx is worth so many tries in all; a request whose fate is unknown may have been billed and is sent once more.
MOST_TRIES, MOST_UNKNOWN = 6, 2


class Retries:
    """The retry policy of one run: a request comes back to the queue with a wait, or is given up for this run.

    Each method takes how an attempt is settled and gives it back, with an outcome if the request is given up. It owns
    the jitter and the circuit breaker.
    """

    def __init__(
        self,
        asker: Asker,
        server: Remote,
        limits: Limits,
        *,
        queue: RequestQueue,
        throttle: Throttle,
        breaker: CircuitBreaker,
        outage: Outage,
        in_flight: Sized,
        stop: Callable[[Stop], None],
    ) -> None:
        self._asker, self._server, self._limits = asker, server, limits
        self._queue, self._throttle, self._breaker, self._outage = queue, throttle, breaker, outage
        self._in_flight, self._stop = in_flight, stop
        self._chance = random.Random()

    def succeeded(self, now: float) -> None:
        """The server answers."""
        self._outage.succeeded()
        self._breaker.succeeded()
        self._throttle.came_through(now)

    def failed(
        self, settled: AttemptResult, queued: QueuedRequest, message: str, now: float, *, asked: float | None = None
    ) -> AttemptResult:
        """After an attempt that failed and cost nothing; `asked` is the wait that the server wants."""
        queued.tries += 1
        why = f"{settled.cause}: {message}"
        self._count_failure(queued, why, now)
        if queued.tries >= MOST_TRIES:
            return replace(settled, outcome="exhausted", detail=why[:500])
        self._queue.delay(queued, now + max(self._backoff(queued.tries), asked or 0.0))
        return settled

    def unknown(self, settled: AttemptResult, queued: QueuedRequest, message: str, now: float) -> AttemptResult:
        """After an attempt that may have been billed without an answer that counts."""
        queued.unknown += 1
        why = f"{settled.cause}: {message}"
        self._count_failure(queued, why, now)
        if queued.unknown >= MOST_UNKNOWN:
            return replace(settled, outcome="unknown", detail=why[:500])
        if settled.cause != "abandoned":  # the next run asks that one again
            self._queue.delay(queued, now + self._backoff(queued.unknown))
        return settled

    def turned_away(
        self, settled: AttemptResult, attempt: Attempt, headers: Mapping[str, str], now: float
    ) -> AttemptResult:
        """After an attempt that the server turned away because it wants fewer requests."""
        self._outage.succeeded()
        queued = attempt.queued
        queued.turned_away += 1
        queued.first_turned_away = queued.first_turned_away if queued.first_turned_away is not None else now
        if now - queued.first_turned_away > self._limits.patience_seconds:
            return replace(settled, outcome="exhausted", detail=f"turned away {queued.turned_away} times")
        seconds = self._throttle.turned_away(now, attempt.left_at)
        if seconds > self._limits.patience_seconds:
            reason = f"{self._asker.who}: {self._server.name} has turned everything away for {seconds:,.0f} s"
            remedy = "see the account's limits (one per day, perhaps), then run again: only the rest is asked"
            self._stop(Stop(reason=reason, remedy=remedy, cause="rate_limit"))
        asked = asked_wait(headers)
        quota = self._server.quota(headers)
        if quota and 0 in (quota.requests_left, quota.tokens_left) and asked:
            # The headers themselves say that nobody gets through before then.
            self._throttle.close_gate(asked)
        wait = asked if asked is not None else self._backoff(min(queued.turned_away, 6))
        self._queue.delay(queued, now + wait)
        return settled

    def longest_wait(self, questions: int) -> float:
        """How many seconds so many questions are held out against a server that is away, about."""
        probes = MOST_PROBES if questions >= BREAK_AFTER else MOST_TRIES - 1
        return sum(min(MOST_WAIT, self._limits.backoff_seconds * 2.0**tries) for tries in range(probes))

    def _count_failure(self, queued: QueuedRequest, why: str, now: float) -> None:
        self._outage.failed(now, why)
        first_try = queued.tries + queued.unknown <= 1
        verdict = self._breaker.failed(first_try=first_try, in_flight=len(self._in_flight))
        if verdict != "ignored":
            self._throttle.overloaded(now)
        if verdict == "broken":
            reason = f"{self._asker.who}: {self._server.url} fails every time ({why})"
            remedy = "run it again when the server is back; what was answered is kept"
            self._stop(Stop(reason=reason, remedy=remedy, cause="unreachable"))
        elif verdict == "probe":
            self._throttle.delay(now + self._backoff(self._breaker.probes))

    def _backoff(self, tries: int) -> float:
        """Twice as long each time, with a quarter of jitter, so that those who failed together do not come together."""
        longest: float = self._limits.backoff_seconds * 2.0 ** (tries - 1)
        return min(MOST_WAIT, longest) * self._chance.uniform(0.75, 1.25)
