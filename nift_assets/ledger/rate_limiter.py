"""The rate limiter that all processes share: how many requests may be sent to one model with one key now.

It is two token buckets, one of requests and one of tokens. The ledger keeps it; everything here is a function of what
the ledger holds and of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nift_assets.protocol.server import Quota

# A learned rate is forgotten when nobody has needed it for so long.
MEMORY_SECONDS = 120.0
MOST_WAIT = 60.0
# A bucket holds no more than this many seconds' worth: a late process loses nothing, an idle one saves up no burst.
BUCKET_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class RateLimiter:
    """The buckets of one key and model: how much may be sent per minute, and how much of it is left at `measured_at`.

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
class LimitObservations:
    """What one process tells the limiter: its row's limits, what headers stated, the rate it learned, and for how many
    seconds nobody gets through."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    quotas: Sequence[Quota] = ()
    learned: float | None = None
    gate_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Admission:
    """How many requests may leave now, the limiter after them, and the seconds until the next may.

    `rate_limited` says whether it is the rate of requests that holds the next one back.
    """

    admitted: int
    limiter: RateLimiter
    wait: float = 0.0
    rate_limited: bool = False


def admit(limiter: RateLimiter, observed: LimitObservations, tokens: Sequence[int], now: float) -> Admission:
    """Which of the waiting requests, of so many tokens each, may leave now, in view of what a process has observed.

    A row's limits bind only those who go by that row; the limiter keeps what the server states and what was learned.
    """
    stated = limiter
    limiter = refill(_within_row(limiter, observed), now)
    for quota in observed.quotas:
        stated, limiter = with_quota(stated, quota), _within_row(with_quota(limiter, quota), observed)
    if observed.gate_seconds is not None:
        limiter = replace(limiter, gate_until=max(now + observed.gate_seconds, limiter.gate_until or 0.0))
    if observed.learned is not None:
        # A limit that has just been found is one that has been used up.
        left = 0.0 if limiter.learned is None else limiter.requests_left
        limiter = replace(limiter, learned=observed.learned, learned_at=now, requests_left=left)
    admission = take(limiter, tokens, now)
    kept = replace(
        admission.limiter,
        requests_per_minute=stated.requests_per_minute,
        tokens_per_minute=stated.tokens_per_minute,
    )
    return replace(admission, limiter=kept)


def _within_row(limiter: RateLimiter, observed: LimitObservations) -> RateLimiter:
    return replace(
        limiter,
        requests_per_minute=_least(limiter.requests_per_minute, observed.requests_per_minute),
        tokens_per_minute=_least(limiter.tokens_per_minute, observed.tokens_per_minute),
    )


def refill(limiter: RateLimiter, now: float) -> RateLimiter:
    """The limiter at a later moment. A clock that went back, as after a restart of the machine, fills nothing."""
    seconds = min(max(now - limiter.measured_at, 0.0), MOST_WAIT)
    if limiter.learned_at is not None and not 0 <= now - limiter.learned_at <= MEMORY_SECONDS:
        limiter = replace(limiter, learned=None, learned_at=None)
    return replace(
        limiter,
        requests_left=_fill(limiter.requests_left, limiter.rate(), seconds),
        tokens_left=_fill(limiter.tokens_left, limiter.tokens_per_minute, seconds),
        measured_at=now,
        # More than the longest wait ahead is a clock that jumped, not a gate.
        gate_until=limiter.gate_until if limiter.gate_until and 0 < limiter.gate_until - now <= MOST_WAIT else None,
    )


def take(limiter: RateLimiter, tokens: Sequence[int], now: float) -> Admission:
    """Which of the waiting requests the buckets have room for now, first come first served."""
    limiter = refill(limiter, now)
    if limiter.gate_until is not None:
        return Admission(admitted=0, limiter=limiter, wait=limiter.gate_until - now)
    admitted, requests_left, tokens_left = 0, limiter.requests_left, limiter.tokens_left
    wait, rate_limited = 0.0, False
    for size in tokens:
        if requests_left is not None and requests_left < 1:
            wait, rate_limited = _until(1 - requests_left, limiter.rate()), True
            break
        # A request larger than the whole bucket leaves when the bucket is full, or it never would.
        needed = min(size, capacity(limiter.tokens_per_minute)) if tokens_left is not None else 0
        if tokens_left is not None and tokens_left < needed:
            wait = _until(needed - tokens_left, limiter.tokens_per_minute)
            break
        requests_left = requests_left - 1 if requests_left is not None else None
        tokens_left = tokens_left - size if tokens_left is not None else None
        admitted += 1
    limiter = replace(limiter, requests_left=requests_left, tokens_left=tokens_left)
    return Admission(admitted=admitted, limiter=limiter, wait=wait, rate_limited=rate_limited)


def with_quota(limiter: RateLimiter, quota: Quota) -> RateLimiter:
    """The limiter after a response whose headers state the limits: what they say is left is the most there can be."""
    return replace(
        limiter,
        requests_per_minute=quota.requests_per_minute or limiter.requests_per_minute,
        tokens_per_minute=quota.tokens_per_minute or limiter.tokens_per_minute,
        requests_left=_least(limiter.requests_left, quota.requests_left),
        tokens_left=_least(limiter.tokens_left, quota.tokens_left),
    )


def capacity(per_minute: float | None) -> float:
    """The most a bucket holds at this rate; at least one request."""
    return max(1.0, (per_minute or 0.0) / 60 * BUCKET_SECONDS)


def _fill(left: float | None, per_minute: float | None, seconds: float) -> float | None:
    if per_minute is None:
        return None
    full = capacity(per_minute)
    # What a full bucket lets through at once is taken off, so that no minute sees more than its limit.
    filling = max(per_minute - full, per_minute / 2) / 60
    return full if left is None else min(full, left + filling * seconds)


def _until(missing: float, per_minute: float | None) -> float:
    return min(MOST_WAIT, 60 * missing / per_minute) if per_minute else 0.0


def _least(*values: float | None) -> float | None:
    known_values = [value for value in values if value is not None]
    return min(known_values) if known_values else None
