"""A hundred million documents, asked in portions by many workers of which some fail: what that takes, simulated.

    python -m tests.scale.portions --documents 100000000 --portion 5000 --workers 100

A scheduler hands the portions out, one `nift ask --portions N` each, and hands one out again whose worker has failed. A
worker keeps so many requests in flight, and writes what came back into the ledger while it sends the next. The ledger
writes so many transactions at once. Small sizes are held against real runs in tests/scale/test_portions.py.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field, fields, replace

from nift_assets.ledger.dispatch import GATHER_SECONDS
from nift_assets.ledger.door import CLAIMED_AT_A_TIME
from nift_assets.rows import Price

# The rows of halves that are read at once, and the bytes of a part that a store is sent.
GROUP, PART_BYTES = 2_048, 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked, by whom, and what may fail; times in seconds.

    Answers come within a `spread` of the latency. `claim` is what the ledger takes to write a thousand questions down,
    `commit` what one exchange takes it and each answer in it besides; it works on `lanes` at once. Of `tokens` a
    request has the first and an answer the second.
    """

    documents: int = 100_000_000
    portion: int = 5_000
    workers: int = 100
    in_flight: int = 200
    latency: float = 8.0
    spread: float = 0.5
    start: float = 90.0
    hours_between_failures: float = 24.0
    restart: float = 120.0
    claim: float = 0.25
    commit: float = 0.004
    answer: float = 0.0002
    lanes: int = 8
    bytes_per_row: int = 6_000
    tokens: tuple[int, int] = (560, 450)
    price: Price = field(default_factory=lambda: Price(input=0.15, output=0.6, max_output=16_384))
    seed: int = 1

    @property
    def portions(self) -> int:
        return math.ceil(self.documents / self.portion)


@dataclass(kw_only=True)
class Took:
    """What it came to: hours, what was scheduled, sent, paid, written and stored, and the share of time that the ledger
    was at work."""

    hours: float = 0.0
    tasks: int = 0
    failures: int = 0
    sent: int = 0
    sent_again: int = 0
    dollars: float = 0.0
    transactions: int = 0
    ledger_share: float = 0.0
    store_reads: int = 0
    store_writes: int = 0

    def lines(self) -> list[str]:
        return [f"{part.name.replace('_', ' '):<14}{getattr(self, part.name):>16,.2f}" for part in fields(self)]


# What a session takes of the ledger besides what it asks: it is begun, its accounts are opened, and it is ended.
OF_A_SESSION = 3


@dataclass
class _Ledger:
    """So many lanes, each free from some time on."""

    lanes: list[float]
    busy: float = 0.0

    def take(self, at: float, seconds: float) -> float:
        """When work is done that could begin at a time."""
        begins = max(at, heapq.heappop(self.lanes))
        heapq.heappush(self.lanes, begins + seconds)
        self.busy += seconds
        return begins + seconds


def simulate(plan: Plan) -> Took:
    """Every portion to its end, whatever fails: in the order of time each worker asks a thousand questions of its
    portion, and the next thousand."""
    chance, took = random.Random(plan.seed), Took()
    ledger = _Ledger([0.0] * plan.lanes)
    sizes = [min(plan.portion, plan.documents - n * plan.portion) for n in range(plan.portions)]
    waiting = deque(sizes)
    fails = [_next_failure(plan, chance, 0.0) for _ in range(plan.workers)]
    # When a worker is free, and how much is left of its portion then.
    events = [(0.0, worker, 0) for worker in range(plan.workers)]
    idle: list[int] = []
    end = 0.0
    while events:
        now, worker, left = heapq.heappop(events)
        if not left:
            if not waiting:
                idle.append(worker)
                continue
            left = waiting.popleft()
            took.tasks += 1
            took.transactions += OF_A_SESSION
            now += plan.start
        done, answered = _asked(plan, ledger, took, now, min(CLAIMED_AT_A_TIME, left), fails[worker])
        end = max(end, done)
        if done < fails[worker]:
            heapq.heappush(events, (done, worker, left - answered))
            continue
        took.failures += 1
        if left - answered:
            waiting.append(left - answered)
        back = done + plan.restart
        fails[worker] = _next_failure(plan, chance, back)
        heapq.heappush(events, (back, worker, 0))
        for other in idle:
            heapq.heappush(events, (done, other, 0))
        idle.clear()
    took.hours = end / 3600
    took.ledger_share = ledger.busy / (end * plan.lanes)
    took.dollars = took.sent * plan.price.cost(*plan.tokens) / 1e9
    took.store_reads = sum(map(_reads, sizes)) + took.failures * _reads(plan.portion)
    took.store_writes = math.ceil(plan.documents * plan.bytes_per_row / PART_BYTES)
    return took


def _asked(plan: Plan, ledger: _Ledger, took: Took, now: float, some: int, fails: float) -> tuple[float, int]:
    """When so many questions are answered, or their worker fails, and how many of them are answered then."""
    if now >= fails:
        return fails, 0
    exchanges = _exchanges(plan, some)
    claimed = ledger.take(now, plan.claim * some / 1_000)
    # As fast as the server answers so many at once, or as the ledger writes them down.
    written = ledger.take(claimed, exchanges * plan.commit + some * plan.answer)
    done = max(claimed + plan.latency * math.ceil(some / plan.in_flight), written)
    part = 1.0 if done < fails else max(0.0, (fails - claimed) / (done - claimed))
    known = some if done < fails else int(some * part)
    lost = min(plan.in_flight, some - known) if claimed < fails else 0
    took.transactions += 1 + round(exchanges * part)
    took.sent += known + lost
    took.sent_again += lost
    return min(done, fails), known


def _exchanges(plan: Plan, count: int) -> int:
    """How many exchanges bring so many in. Each takes what came while the one before was written, and a moment longer;
    what was sent together comes back within the spread."""
    window = min(plan.in_flight, count)
    within = plan.spread * plan.latency
    together = window if within <= 0 else min(window, window / within * (GATHER_SECONDS + plan.commit))
    return 1 + math.ceil(count / max(1.0, together))


def _next_failure(plan: Plan, chance: random.Random, after: float) -> float:
    hours = plan.hours_between_failures
    return math.inf if math.isinf(hours) else after + chance.expovariate(1 / (hours * 3600))


def _reads(documents: int) -> int:
    """Groups of rows of halves, and the footer."""
    return math.ceil(documents / GROUP) + 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--documents", type=int, default=Plan.documents)
    options.add_argument("--portion", type=int, default=Plan.portion)
    options.add_argument("--workers", type=int, default=Plan.workers)
    options.add_argument("--hours-between-failures", type=float, default=Plan.hours_between_failures)
    given = options.parse_args()
    show(replace(Plan(), **vars(given)))


def show(plan: Plan) -> None:
    """Prints what a plan takes."""
    print(f"{plan.documents:,} documents in {plan.portions:,} portions over {plan.workers} workers, simulated")
    print("\n".join(simulate(plan).lines()))


if __name__ == "__main__":
    main()
