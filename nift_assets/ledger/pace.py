"""How fast to ask: buckets that all processes share, and what one process learns from the answers it gets.

A single 429 cools down its own request. Everything slows down only when quota headers say so, or when so many requests
are turned away together that there must be a limit: then its height is measured by what still gets through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nift_assets.protocol.server import Quota

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
# What was learned is forgotten when nobody has needed it for so long.
MEMORY_SECONDS = 120.0
MOST_WAIT = 60.0
# A bucket holds no more than this many seconds' worth: a late process loses nothing, an idle one saves up no burst.
BUCKET_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """The buckets of one key and model: how much may be asked per minute, and how much of it is left at `measured_at`.

    None means that no limit is known. `learned` is a rate of requests found out by being turned away.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_left: float | None = None
    tokens_left: float | None = None
    measured_at: float = 0.0
    learned: float | None = None
    learned_at: float | None = None
    gate_until: float | None = None

    def rate(self) -> float | None:
        """Requests per minute: the lower of what is known and what was learned."""
        return _least(self.requests_per_minute, self.learned)


@dataclass(frozen=True, kw_only=True)
class News:
    """What a process brings to the gauge: the limits of its row, what headers said, what it learned, and for how many
    seconds nobody gets through."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    quotas: Sequence[Quota] = ()
    learned: float | None = None
    gate_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How many may leave now, the gauge after them, the seconds until the next may, and whether it is the rate of
    requests that holds it back."""

    admitted: int
    gauge: Gauge
    wait: float = 0.0
    held: bool = False


def turn(gauge: Gauge, news: News, tokens: Sequence[int], now: float) -> Turn:
    """Who of the waiting requests, of so many tokens each, may leave now, in view of the news.

    The limits of a row hold for who goes by the row; what the gauge keeps is what the server says and what was learned.
    """
    said = gauge
    gauge = refilled(_in_row(gauge, news), now)
    for quota in news.quotas:
        said, gauge = told(said, quota), _in_row(told(gauge, quota), news)
    if news.gate_seconds is not None:
        gauge = replace(gauge, gate_until=max(now + news.gate_seconds, gauge.gate_until or 0.0))
    if news.learned is not None:
        # A limit that has just been found is one that has been used up.
        left = 0.0 if gauge.learned is None else gauge.requests_left
        gauge = replace(gauge, learned=news.learned, learned_at=now, requests_left=left)
    found = admit(gauge, tokens, now)
    kept = replace(found.gauge, requests_per_minute=said.requests_per_minute, tokens_per_minute=said.tokens_per_minute)
    return replace(found, gauge=kept)


def _in_row(gauge: Gauge, news: News) -> Gauge:
    return replace(
        gauge,
        requests_per_minute=_least(gauge.requests_per_minute, news.requests_per_minute),
        tokens_per_minute=_least(gauge.tokens_per_minute, news.tokens_per_minute),
    )


def refilled(gauge: Gauge, now: float) -> Gauge:
    """The gauge at a later moment. A clock that went back, as after a restart of the machine, fills nothing."""
    seconds = min(max(now - gauge.measured_at, 0.0), MOST_WAIT)
    if gauge.learned_at is not None and not 0 <= now - gauge.learned_at <= MEMORY_SECONDS:
        gauge = replace(gauge, learned=None, learned_at=None)
    return replace(
        gauge,
        requests_left=_fill(gauge.requests_left, gauge.rate(), seconds),
        tokens_left=_fill(gauge.tokens_left, gauge.tokens_per_minute, seconds),
        measured_at=now,
        # More than the longest wait ahead is a clock that jumped, not a gate.
        gate_until=gauge.gate_until if gauge.gate_until and 0 < gauge.gate_until - now <= MOST_WAIT else None,
    )


def admit(gauge: Gauge, tokens: Sequence[int], now: float) -> Turn:
    """Who of the waiting requests, of so many tokens each, may leave now, first come first served."""
    gauge = refilled(gauge, now)
    if gauge.gate_until is not None:
        return Turn(admitted=0, gauge=gauge, wait=gauge.gate_until - now)
    admitted, requests_left, tokens_left = 0, gauge.requests_left, gauge.tokens_left
    wait, held = 0.0, False
    for size in tokens:
        if requests_left is not None and requests_left < 1:
            wait, held = _until(1 - requests_left, gauge.rate()), True
            break
        # A request larger than the whole bucket leaves when the bucket is full, or it never would.
        needed = min(size, _capacity(gauge.tokens_per_minute)) if tokens_left is not None else 0
        if tokens_left is not None and tokens_left < needed:
            wait = _until(needed - tokens_left, gauge.tokens_per_minute)
            break
        requests_left = requests_left - 1 if requests_left is not None else None
        tokens_left = tokens_left - size if tokens_left is not None else None
        admitted += 1
    gauge = replace(gauge, requests_left=requests_left, tokens_left=tokens_left)
    return Turn(admitted=admitted, gauge=gauge, wait=wait, held=held)


def told(gauge: Gauge, quota: Quota) -> Gauge:
    """The gauge after a response whose headers name the limits: what they say is left is the most there can be."""
    return replace(
        gauge,
        requests_per_minute=quota.requests_per_minute or gauge.requests_per_minute,
        tokens_per_minute=quota.tokens_per_minute or gauge.tokens_per_minute,
        requests_left=_least(gauge.requests_left, quota.requests_left),
        tokens_left=_least(gauge.tokens_left, quota.tokens_left),
    )


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
        self._sent, self._away, self._held = 0, 0, False
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
        self._away += left_at >= self._fell_at

    def overloaded(self, now: float) -> None:
        """The server is in trouble: ask half as much, at most once a second."""
        if now - self._shrunk_at >= 1:
            self._shrunk_at = now
            self.window = max(1.0, self.window / 2)

    def learned(self, now: float, rate: float | None, *, held: bool) -> float | None:
        """A new learned rate of requests per minute, or None where there is nothing new to say.

        `rate` is the learned rate all processes go by now, `held` whether requests have been waiting for it.
        """
        while self._last_second and now - self._last_second[0][0] > 1.0:
            self._last_second.popleft()
        self._held = self._held or held
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
        sent, away, held, seconds = self._sent, self._away, self._held, now - self._reviewed_at
        if away and (sent + away >= 4 or seconds >= 4 * REVIEW_SECONDS):
            self._begin(now, rate)
            share = max(1 - away / max(sent, 1), 0.5)
            # A rate that nobody was waiting for is no measure: what was sent is.
            lower = max(LEAST_RATE, rate * share if held else min(rate, 60 * sent / seconds) * share)
            if not self._falling:
                self._fell_from = rate
            if lower == LEAST_RATE:
                self._fell_from = float("inf")  # nobody knows where the limit is
            self._step, self._falling = LEAST_STEP, True
            return lower
        if away or not sent:
            return None
        self._begin(now, rate)
        if not held:
            return None
        self._falling = False
        if rate < self._fell_from / 3:
            # Far below what once got through, as after an outage: back up fast.
            return rate * 2
        self._step = min(MOST_STEP, self._step * STEP_GROWTH)
        return rate + max(LEAST_RATE / 2, rate * self._step)

    def _begin(self, now: float, rate: float | None) -> None:
        self._reviewed_at, self._rate = now, rate
        self._sent, self._away, self._held = 0, 0, False


def _fill(left: float | None, per_minute: float | None, seconds: float) -> float | None:
    if per_minute is None:
        return None
    capacity = _capacity(per_minute)
    # What a full bucket lets through at once is taken off, so that no minute sees more than its limit.
    filling = max(per_minute - capacity, per_minute / 2) / 60
    return capacity if left is None else min(capacity, left + filling * seconds)


def _capacity(per_minute: float | None) -> float:
    return max(1.0, (per_minute or 0.0) / 60 * BUCKET_SECONDS)


def _until(missing: float, per_minute: float | None) -> float:
    return min(MOST_WAIT, 60 * missing / per_minute) if per_minute else 0.0


def _least(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None
