"""Sending requests to a server: a sliding window without batches, retries in between, every step in the book first.

One cycle writes down how the attempts that came back ended and takes the next requests, in one commit; what was not
admitted there never leaves, and what came back is used by nobody before.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.circuit_breaker import CircuitBreaker
from nift_assets.ledger.connection import Connection, Failure, Response, connect
from nift_assets.ledger.group_commit import GroupCommit
from nift_assets.ledger.in_flight import Attempt, InFlight
from nift_assets.ledger.outage import Outage
from nift_assets.ledger.progress import Counts, Stop
from nift_assets.ledger.question_source import QuestionSource
from nift_assets.ledger.request_queue import PassedOver, QueuedRequest, RequestQueue, prepare
from nift_assets.ledger.retries import Retries
from nift_assets.ledger.settlement import Settlement
from nift_assets.ledger.throttle import Throttle
from nift_assets.protocol.server import Remote
from nift_assets.rows import Limits, Price
from nift_assets.secrets import redaction

log = logging.getLogger(__name__)

# What comes back together is committed together: waiting this long costs little beside a model's latency.
GATHER_SECONDS = 0.002
DRAIN_SECONDS = 30.0
# A full disk, a lock or a database that restarts is waited for: what has come back meanwhile waits in the spill.
BOOK_PATIENCE_SECONDS = 300.0
WARN_SECONDS = 30.0
TICK = 0.25
REPORT_SECONDS = 10.0


class Dispatch:
    """Brings the questions of one call of the door to an end.

    It owns the loop of exchanges, and why that stopped. Its parts own the rest: the queue what waits to leave,
    `InFlight` what is under way, `Settlement` what became of it, `GroupCommit` what the next exchange writes, and
    `Throttle` how fast it may go.
    """

    def __init__(
        self,
        book: Book,
        session: int,
        asker: Asker,
        server: Remote,
        limits: Limits,
        price: Price | None,
        report: Callable[[Counts], None] | None = None,
        *,
        counts: Counts | None = None,
    ) -> None:
        self._asker, self._session, self._server, self._tell = asker, session, server, report
        self.counts = counts or Counts()
        self.stopped: Stop | None = None
        # Whose cap has no room for what the queue has passed over.
        self.over_budget: str | None = None
        self._stopped_at: float | None = None
        self._interrupted: Stop | None = None
        self._warn_from = 0.0
        self._parent = os.getppid()
        self._queue = RequestQueue(lambda request: prepare(request, server, price))
        self._in_flight = InFlight(limits.seconds_per_request, self._came_back)
        self._commit = GroupCommit(book, session, asker, server)
        self._throttle = Throttle(limits)
        self._breaker = CircuitBreaker()
        self._outage = Outage(server.url)
        self._retries = Retries(
            asker,
            server,
            limits,
            queue=self._queue,
            throttle=self._throttle,
            breaker=self._breaker,
            outage=self._outage,
            in_flight=self._in_flight,
            stop=self._stop,
        )
        self._settlement = Settlement(
            asker, server, price, counts=self.counts, throttle=self._throttle, retries=self._retries, stop=self._stop
        )

    @property
    def passed_over(self) -> PassedOver:
        """The requests that may each cost more than a cap has left."""
        return self._queue.passed_over

    async def run(self, questions: QuestionSource) -> None:
        """Asks until every question has ended in some way or dispatch is stopped; in flight is drained in any case.
        Each question is taken when there is room for it."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stopped_at = None
        questions.arrived = self._wake_up
        self._queue.fill(questions)
        ticker = asyncio.create_task(self._tick())
        try:
            async with connect(self._server) as connection:
                await self._cycle(connection, ticker)
            if self._has_news():  # that the server is back, which may have been all that was missing
                self._report()
        except BaseException:
            with suppress(OSError):  # whatever ended it: what has come back is kept
                self._commit.leave()
            raise
        finally:
            questions.give_up()
            ticker.cancel()

    def _wake_up(self) -> None:
        """Called from any thread."""
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self, stop: Stop) -> None:
        """Lets nothing more leave from the next tick on; called from any thread, before the run has begun as well."""
        self._interrupted = stop

    async def _cycle(self, connection: Connection, ticker: asyncio.Task[None]) -> None:
        refusals = self._settlement.refusals
        while True:
            if self._interrupted is not None:
                self._stop(self._interrupted)
            if ticker.done():
                ticker.result()  # whatever ended it: without it nothing would ever time out
            self._queue.release(self._now())
            leaving = self._take()
            if self._commit or leaving:
                await self._write(leaving, connection)
            elif not self._in_flight and (self.stopped or self._queue.empty()):
                if not refusals:
                    return
                # After a stop nobody knows whether they were about the texts: the next run asks again.
                self._commit.add(refusals.doubt() if self.stopped else refusals.believe())
            elif self._drained_long_enough():
                return
            else:
                await self._sleep()

    def _take(self) -> list[QueuedRequest]:
        """The requests there is room for in the window now."""
        if self.stopped or self._now() < self._throttle.not_before:
            return []
        room = (1 if self._breaker.open else self._throttle.window) - len(self._in_flight)
        return self._queue.take(room) if room > 0 else []

    async def _write(self, leaving: Sequence[QueuedRequest], connection: Connection) -> None:
        """One exchange with the book. While it cannot be written nothing leaves, and nothing that came is let go."""
        try:
            self._exchange(leaving, connection)
            await asyncio.sleep(0)  # let what is under way move
        except Exception as error:
            self._queue.put_back(leaving)
            self._outlast(error)
            await asyncio.sleep(1.0)

    def _outlast(self, error: Exception) -> None:
        """The book cannot be written: what has come back goes into the spill, until the book takes it or the patience
        ends. There is no end to it while even the spill has no place: what only this process knows would be paid again.
        """
        now, said = self._now(), redaction.safe(error)
        seconds = self._commit.failed(now)
        self._throttle.delay(now + 1.0)
        try:
            self._commit.put_outside()
            patience = DRAIN_SECONDS if self.stopped else BOOK_PATIENCE_SECONDS
            if seconds > patience and not self._in_flight:
                self._commit.add(self._settlement.refusals.doubt())
                self._leave(f"cannot be written for {seconds:,.0f} s ({said[:300]})")
                return
        except OSError as full:
            said = f"{said}; and what has come back is nowhere but here: {redaction.safe(full)}"
        if now >= self._warn_from:
            self._warn_from = now + WARN_SECONDS
            log.warning("the ledger cannot be written, trying again: %s", said)

    def _leave(self, why: str) -> None:
        places = self._commit.leave()
        kept = f"what has come back is in {' and '.join(map(str, places))} and is taken in then" if places else ""
        remedy = "see to its disk or its server and run this again"
        remedy = f"{remedy}; {kept}" if kept else remedy
        self._stop(Stop(reason=f"{self._asker.who}: the ledger {why}", remedy=remedy, cause="ledger"))

    def _exchange(self, leaving: Sequence[QueuedRequest], connection: Connection) -> None:
        final = self._commit.final()
        # On the loop's own thread: a commit takes milliseconds, and handing it over costs more than it saves.
        exchanged = self._commit.exchange(
            [queued.reservation() for queued in leaving], self._throttle.observed(self._now())
        )
        if exchanged.fenced:
            self._stop(
                Stop(
                    reason=f"{self._asker.who}: another process has taken over from this one, which had lost its lock",
                    remedy="leave it to that one, or run this again when it has ended",
                    cause="fenced",
                )
            )
        leaving = [queued for queued in leaving if queued.request.key not in exchanged.answered]
        self.counts.settled += final + len(exchanged.answered)
        self._throttle.exchanged(self._now(), exchanged, asked=bool(leaving))
        for number, queued in zip(exchanged.numbers, leaving, strict=False):
            self._launch(number, queued, connection)
        self._queue.put_back(leaving[len(exchanged.numbers) :])
        if exchanged.over_budget is not None and not self._in_flight:
            # With nothing in flight no reservation of ours can come free.
            self._queue.pass_over(exchanged.room)
            self.over_budget = exchanged.over_budget
        elif exchanged.over_budget is not None:
            self._throttle.delay(max(self._throttle.not_before, self._now() + 0.05))

    def _launch(self, number: int, queued: QueuedRequest, connection: Connection) -> None:
        self.counts.sent += 1
        name = f"nift-{self._session}-{number}"
        self._in_flight.launch(
            Attempt(queued, number, self._now()), lambda attempt: connection.post(queued.payload, name, attempt)
        )

    def _came_back(self, attempt: Attempt, outcome: Response | Failure) -> None:
        self._commit.add(self._settlement.settled(attempt, outcome, self._now()))
        self._wake.set()

    async def _sleep(self) -> None:
        """Until an attempt comes back, or the next request may leave; at most a second."""
        now = self._now()
        until = [now + 1.0]
        if (release := self._queue.next_release()) is not None:
            until.append(release)
        if self._throttle.not_before > now:
            until.append(self._throttle.not_before)
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.001, min(until) - now))
            await asyncio.sleep(GATHER_SECONDS)
        except TimeoutError:
            pass
        self._wake.clear()

    async def _tick(self) -> None:
        """Ends what has taken too long, and everything if the process that started this one has gone."""
        last = self._now()
        reported = last
        while True:
            await asyncio.sleep(TICK)
            now = self._now()
            # A longer tick is a process that was not running.
            passed, last = min(now - last, 2 * TICK), now
            self._in_flight.pass_time(passed)
            if self._interrupted is not None:
                self._wake.set()
            if os.getppid() != self._parent:
                self._stop(
                    Stop(reason="the process that started this step has gone", remedy="run it again", cause="orphaned")
                )
            if self._has_news() or now - reported >= REPORT_SECONDS:
                reported = now
                self._report()

    def _has_news(self) -> bool:
        longest = self._retries.longest_wait(self.counts.wanted - self.counts.settled)
        self.counts.news = self._outage.news(self._now(), self._in_flight.attempts(), longest)
        return self.counts.news is not None

    def _report(self) -> None:
        """Tells how far it is; that nobody can take the report is no reason to stop."""
        try:
            if self._tell:
                self._tell(self.counts)
        except Exception as error:
            log.warning("a report could not be made: %s", redaction.safe(error))

    def _stop(self, stop: Stop) -> None:
        if self.stopped is None:
            self.stopped = stop
            self._stopped_at = self._now()
        self._wake.set()

    def _drained_long_enough(self) -> bool:
        if self._stopped_at is None or self._now() - self._stopped_at < DRAIN_SECONDS:
            return False
        self._in_flight.abandon()
        return not self._in_flight

    def _now(self) -> float:
        return self._loop.time()


def over_budget(asker: Asker, who: str, passed_over: PassedOver) -> Stop:
    """That a cap leaves no room for what is left to ask, and the dearest of it."""
    cap = dict(asker.caps())[who] or 0
    account = f"{asker.study}/{who}" if who else f"the study {asker.study}"
    remedy = "raise it in the row or by NIFT_BUDGET_USD and run again" if not who else "raise it in the row"
    return Stop(
        reason=f"budget reached: the cap of {account} is ${cap / 1e9:,.2f} and leaves no room for one more request: "
        f"{len(passed_over):,} are left, {dearest(passed_over)}",
        remedy=f"{remedy}; what was answered is kept, and only the rest is asked then",
        cause="budget",
    )


def dearest(passed_over: PassedOver) -> str:
    """The request that may cost most, in words by which a person finds its text."""
    assert passed_over.dearest is not None, "there is one"
    request, amount = passed_over.dearest
    text = request.messages[-1].content
    begins = " ".join(text[:200].split())[:40]
    return f"the dearest begins {begins!r} ({len(text):,} characters, up to ${amount / 1e9:,.2f})"
