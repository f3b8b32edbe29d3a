"""The requests of one run that wait to leave: those never sent, those ready, and those that wait before a retry."""

from __future__ import annotations

import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nift_assets.ledger.book import Reservation
from nift_assets.ledger.question_source import QuestionSource
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import Remote
from nift_assets.rows import Price

# Made once: `json.dumps` with arguments makes an encoder for each call.
encoded = json.JSONEncoder(ensure_ascii=False).encode
# What an answer is taken to need of the tokens per minute where the server counts what is really written.
LIKELY_OUTPUT = 512


@dataclass(eq=False)
class QueuedRequest:
    """A request on its way, the most it can cost, the tokens it is taken to need, and how it has fared so far."""

    request: Request
    payload: bytes
    amount: int
    tokens: int
    tries: int = 0
    unknown: int = 0
    turned_away: int = 0
    first_turned_away: float | None = None

    def reservation(self) -> Reservation:
        return Reservation(key=self.request.key, amount=self.amount, tokens=self.tokens)


@dataclass(eq=False)
class PassedOver:
    """The requests for which a cap has no room: the key of each with the most it can cost, and the dearest whole."""

    amounts: list[tuple[str, int]] = field(default_factory=list)
    dearest: tuple[Request, int] | None = None

    def __len__(self) -> int:
        return len(self.amounts)

    def add(self, request: Request, amount: int) -> None:
        self.amounts.append((request.key, amount))
        if self.dearest is None or amount > self.dearest[1]:
            self.dearest = request, amount


def prepare(request: Request, server: Remote, price: Price | None) -> QueuedRequest:
    """A request as its server takes it."""
    payload = encoded(server.payload(request)).encode("utf-8", "surrogatepass")
    limit = request.output_limit
    amount = price.most(len(payload), limit) if price else 0
    likely_output = limit or LIKELY_OUTPUT
    if not (limit and server.counts_limit()):
        likely_output = min(likely_output, LIKELY_OUTPUT)
    return QueuedRequest(request, payload, amount, tokens=len(payload) // 4 + likely_output)


class RequestQueue:
    """The requests that wait to leave, in their order; those that are tried again go before those never sent.

    It owns the questions not yet prepared, and makes each ready only when there is room for it.
    """

    def __init__(self, prepare: Callable[[Request], QueuedRequest]) -> None:
        self._prepare = prepare
        self._questions = QuestionSource.of(())
        self._ready: deque[QueuedRequest] = deque()
        self._delayed: list[tuple[float, int, QueuedRequest]] = []
        self._order = itertools.count()
        self._room: int | None = None
        self.passed_over = PassedOver()

    def fill(self, questions: QuestionSource) -> None:
        """Gives it the questions of a run; it has come to the end of those before."""
        self._questions = questions

    def take(self, room: int) -> list[QueuedRequest]:
        """The next requests, as many as there is room for."""
        while len(self._ready) < room and self._prepare_next():
            pass
        return [self._ready.popleft() for _ in range(min(room, len(self._ready)))]

    def put_back(self, requests: Sequence[QueuedRequest]) -> None:
        """Puts requests that were taken and have not left in front again."""
        self._ready.extendleft(reversed(requests))

    def delay(self, request: QueuedRequest, until: float) -> None:
        """Lets a request wait before it is tried again."""
        heapq.heappush(self._delayed, (until, next(self._order), request))

    def release(self, now: float) -> None:
        """Puts the requests that have waited long enough before those never sent."""
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._delayed)[2])

    def next_release(self) -> float | None:
        """When the next request has waited long enough."""
        return self._delayed[0][0] if self._delayed else None

    def pass_over(self, room: int) -> None:
        """Takes out every request that may cost more than there is room for; of those not yet prepared each when it
        comes."""
        for queued in self._all_prepared():
            if queued.amount > room:
                self.passed_over.add(queued.request, queued.amount)
        self._ready = deque(queued for queued in self._ready if queued.amount <= room)
        self._delayed = [entry for entry in self._delayed if entry[2].amount <= room]
        heapq.heapify(self._delayed)
        self._room = room

    def _all_prepared(self) -> Iterator[QueuedRequest]:
        yield from self._ready
        yield from (entry[2] for entry in self._delayed)

    def empty(self) -> bool:
        """Whether nothing is left to send, and nothing more will come."""
        return not (self._ready or self._prepare_next() or self._delayed) and self._questions.is_empty()

    def _prepare_next(self) -> bool:
        while (question := self._questions.next()) is not None:
            queued = self._prepare(question)
            if self._room is None or queued.amount <= self._room:
                self._ready.append(queued)
                return True
            self.passed_over.add(queued.request, queued.amount)
        return False
