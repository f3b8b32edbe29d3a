"""How fast one process asks: the width of its window, and the server's hidden limit where it finds one.

A single 429 cools down its own request. Everything slows down only when quota headers say so, or when so many requests
are turned away together that there must be a limit: then its height is measured by what still gets through.
"""

from __future__ import annotations

from collections import deque

# A window this wide is no risk, and half as wide again with each round trip it soon is as wide as it may be. Twice as
# wide, and the wave that meets a hidden limit first is twice as large: 2% more of 3,000 requests were turned away.
FIRST_WINDOW = 32
GROWTH = 0.5
# So many turned away of the last so many are a limit, not bad luck: of a fifth at random 14 of 20 are once in 500,000.
LIMIT_SHOWS = ((14, 20), (40, 100))
# A learned rate is looked at twice a second: down to the share that got through, up in steps that grow while nobody is
# turned away. One step of the least size too many costs one request in a hundred.
REVIEW_SECONDS = 0.5
FIRST_STEP, LEAST_STEP, MOST_STEP, STEP_GROWTH = 0.06, 0.006, 0.2, 1.3
# At this rate per minute a server that turns everybody away is asked whether it still does.
LEAST_RATE = 60.0


class Pace:
    """What one process learns from what comes back: how many requests to have in flight, and whether there is a limit.

    A limit is measured, not guessed: while anybody is turned away, what gets through is what the limit lets through.
    Times are seconds of a clock that never goes back.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self.window = float(min(FIRST_WINDOW, most))
        self._shrunk_at = float("-inf")
        self._outcomes: deque[bool] = deque(maxlen=LIMIT_SHOWS[-1][1])
        self._last_second: deque[tuple[float, int, bool]] = deque()
        self._rate: float | None = None
        self._reviewed_at = 0.0
        self._sent, self._turned_away, self._rate_limited = 0, 0, False
        self._step = FIRST_STEP
        self._fell_from = 0.0
        self._falling = False
        self._fell_at = 0.0

    def sent(self, now: float, count: int) -> None:
        """So many have left; they count as through unless they are turned away, which is told sooner than an answer."""
        self._last_second.append((now, count, False))
        self._sent += count

    def came_through(self, now: float) -> None:
        self.window = min(self._most, self.window + GROWTH)
        self._last_second.append((now, 1, True))
        self._outcomes.append(False)

    def turned_away(self, now: float, left_at: float) -> None:
        # Until it is known whether there is a limit, who was turned away is not replaced.
        self.window = max(min(FIRST_WINDOW, self._most) / 2, self.window - GROWTH)
        self._last_second.append((now, -1, False))
        self._outcomes.append(True)
        # Who left before the rate fell says nothing about the rate it fell to.
        self._turned_away += left_at >= self._fell_at

    def overloaded(self, now: float) -> None:
        """The server is in trouble: ask half as much, at most once a second."""
        if now - self._shrunk_at >= 1:
            self._shrunk_at = now
            self.window = max(1.0, self.window / 2)

    def learned(self, now: float, rate: float | None, *, rate_limited: bool) -> float | None:
        """A new learned rate of requests per minute, or None where there is nothing new to say.

        `rate` is the learned rate all processes go by now, `rate_limited` whether requests have been waiting for it.
        """
        while self._last_second and now - self._last_second[0][0] > 1.0:
            self._last_second.popleft()
        self._rate_limited = self._rate_limited or rate_limited
        if rate is None:
            self._begin(now, None)
            return self._first_estimate()
        if rate != self._rate:
            # It is new, from here or from another process: what came back so far was asked at another rate.
            if self._rate is None or rate < self._rate:
                self._fell_at = now
            self._begin(now, rate)
            return None
        return self._review(now, rate) if now - self._reviewed_at >= REVIEW_SECONDS else None

    def _first_estimate(self) -> float | None:
        recent = list(self._outcomes)
        if not any(sum(recent[-last:]) >= away for away, last in LIMIT_SHOWS):
            return None
        self._outcomes.clear()
        self._step, self._falling = FIRST_STEP, False
        answered = sum(count for _, count, through in self._last_second if through)
        # Where an answer takes longer than a second, what was not turned away is still under way.
        under_way = sum(count for _, count, through in self._last_second if not through)
        return max(LEAST_RATE, 60.0 * (answered or under_way))

    def _review(self, now: float, rate: float) -> float | None:
        sent, away, seconds = self._sent, self._turned_away, now - self._reviewed_at
        rate_limited = self._rate_limited
        if away and (sent + away >= 4 or seconds >= 4 * REVIEW_SECONDS):
            self._begin(now, rate)
            share = max(1 - away / max(sent, 1), 0.5)
            # A rate that nobody was waiting for is no measure: what was sent is.
            lower = max(LEAST_RATE, rate * share if rate_limited else min(rate, 60 * sent / seconds) * share)
            if not self._falling:
                self._fell_from = rate
            if lower == LEAST_RATE:
                self._fell_from = float("inf")  # nobody knows where the limit is
            self._step, self._falling = LEAST_STEP, True
            return lower
        if away or not sent:
            return None
        self._begin(now, rate)
        if not rate_limited:
            return None
        self._falling = False
        if rate < self._fell_from / 3:
            # Far below what once got through, as after an outage: back up fast.
            return rate * 2
        self._step = min(MOST_STEP, self._step * STEP_GROWTH)
        return rate + max(LEAST_RATE / 2, rate * self._step)

    def _begin(self, now: float, rate: float | None) -> None:
        self._reviewed_at, self._rate = now, rate
        self._sent, self._turned_away, self._rate_limited = 0, 0, False
