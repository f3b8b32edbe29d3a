"""Sending requests to a server: a sliding window without batches, retries in between, every step in the book first.

One cycle writes down how the attempts that came back ended and takes the next requests, in one commit; what was not
admitted there never leaves, and what came back is used by nobody before.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import json
import logging
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from nift_assets import crash_points
from nift_assets.ledger.book import Asker, Book, Settled, Wish
from nift_assets.ledger.pace import MOST_WAIT, News, Pace
from nift_assets.protocol.answer import Reading, Status
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import Quota, Remote, Trouble
from nift_assets.rows import Limits, Price
from nift_assets.secrets import redaction

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

# Made once: `json.dumps` with arguments makes an encoder for each call.
encoded = json.JSONEncoder(ensure_ascii=False).encode

# A 5xx is worth so many tries in all; a request whose fate is unknown may have been billed and is sent once more.
MOST_TRIES, MOST_UNKNOWN = 6, 2
# What comes back together is committed together: waiting this long costs little beside a model's latency.
GATHER_SECONDS = 0.002
# So many failures in a row without a success, and the server is asked by one request at a time; after so many of
# those in vain the run ends.
BREAK_AFTER, MOST_PROBES = 50, 8
DRAIN_SECONDS = 30.0
MOST_BYTES = 16 * 2**20
# So many refusals in a row with the same words are not about so many texts.
REFUSED_ALIKE = 20
# A full disk or a database that restarts is waited for: what has arrived by then is paid for.
BOOK_PATIENCE_SECONDS = 60.0
EVIDENCE_BYTES = 64 * 2**10
TICK = 0.25
REPORT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why dispatch ended before everything was asked, in one line, and what a person can do about it."""

    reason: str
    remedy: str
    cause: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


@dataclass(kw_only=True)
class Counts:
    """What a run has done so far."""

    wanted: int = 0
    sent: int = 0
    settled: int = 0
    output_tokens: int = 0
    spent: int = 0


@dataclass(eq=False)
class _Item:
    """A question on its way."""

    request: Request
    payload: bytes
    reserve: int
    tokens: int
    tries: int = 0
    unknown: int = 0
    turned_away: int = 0
    first_turned_away: float | None = None


@dataclass(eq=False)
class _Flight:
    """An attempt under way; `awake` counts the seconds this process was running since it left."""

    item: _Item
    number: int
    left_at: float
    task: asyncio.Task[None] | None = None
    on_the_wire: bool = False
    awake: float = 0.0
    timed_out: bool = False


@dataclass
class Dispatch:
    """Everything one call of the door needs to bring its questions to an end."""

    book: Book
    session: int
    asker: Asker
    provider: Remote
    limits: Limits
    price: Price | None
    report: Callable[[Counts], None] | None = None
    stopped: Stop | None = None
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._ready: deque[_Item] = deque()
        self._cooling: list[tuple[float, int, _Item]] = []
        self._order = itertools.count()
        self._flights: dict[int, _Flight] = {}
        self._settled: list[Settled] = []
        self._pace = Pace(self.limits.in_flight)
        self._next_number = 1
        self._admit_after = 0.0
        self._gate: float | None = None
        self._quotas: list[Quota] = []
        self._learned: float | None = None
        self._held = False
        self._failures_in_row = 0
        self._probes = 0
        self._refused: list[tuple[float, Settled]] = []
        self._refusal = ""
        self._last_through: float | None = None
        self._book_fails_since: float | None = None
        self._successes = 0
        self._chance = random.Random()
        self._secrets = redaction.Snapshot(self.provider.key)
        self._parent = os.getppid()
        self._interrupted: Stop | None = None
        name = f"{self.provider.name} {self.provider.model} {self.provider.key_fingerprint()}"
        self._gauge = hashlib.sha256(name.encode()).hexdigest()

    # -- the cycle -----------------------------------------------------------------------------------------------

    async def run(self, questions: Sequence[Request]) -> None:
        """Asks until every question has ended in some way or dispatch is stopped; in flight is drained in any case."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stopped_at: float | None = None
        self._waiting = iter(questions)
        self.counts.wanted += len(questions)
        self._ticker = asyncio.create_task(self._tick())
        try:
            async with self._connect() as self._http:
                await self._cycle()
        finally:
            self._ticker.cancel()

    def stop(self, stop: Stop) -> None:
        """Lets nothing more leave from the next tick on; called from any thread, before the run has begun as well."""
        self._interrupted = stop

    async def _cycle(self) -> None:
        while True:
            if self._interrupted is not None:
                self._stop(self._interrupted)
            if self._ticker.done():
                self._ticker.result()  # whatever ended it: without it nothing would ever time out
            self._thaw()
            wishes = self._wishes()
            if self._settled or wishes:
                await self._write(wishes)
                continue
            if not self._flights and (self.stopped or not self._left()):
                if not self._refused:
                    return
                # After a stop nobody knows whether they were about the texts: the next run asks again.
                self._doubt_refusals() if self.stopped else self._believe_refusals()
            elif self._drained_long_enough():
                return
            else:
                await self._sleep()

    async def _write(self, wishes: Sequence[_Item]) -> None:
        """One exchange with the book. While the book cannot be written nothing leaves and nothing that came is let go:
        it is tried again until the patience for it ends."""
        try:
            self._exchange(wishes)
            self._book_fails_since = None
            await asyncio.sleep(0)  # let what is under way move
        except Exception as error:
            self._ready.extendleft(reversed(wishes))
            now = self._now()
            self._book_fails_since = self._book_fails_since if self._book_fails_since is not None else now
            if now - self._book_fails_since > BOOK_PATIENCE_SECONDS and not self._flights:
                raise
            log.warning("the ledger cannot be written, trying again: %s", redaction.safe(error))
            self._admit_after = now + 1.0
            await asyncio.sleep(1.0)
            self._heal()

    def _heal(self) -> None:
        """After a failure whose commit may have gone through: what it settled is not settled twice."""
        try:
            self._settled, self._next_number = self.book.heal(
                self.session, self.asker, self._settled, self._next_number
            )
        except Exception as error:
            log.warning("the ledger still cannot be written: %s", redaction.safe(error))

    def _exchange(self, wishes: Sequence[_Item]) -> None:
        settled = list(self._settled)
        news = News(
            requests_per_minute=self.limits.requests_per_minute,
            tokens_per_minute=self.limits.tokens_per_minute,
            quotas=self._quotas,
            learned=self._pace.learned(self._now(), self._learned, held=self._held),
            gate_seconds=self._gate,
        )
        # On the loop's own thread: a commit takes milliseconds, and handing it over costs more than it saves.
        admitted = self.book.exchange(
            self.session,
            self.asker,
            settled,
            [Wish(key=item.request.key, reserve=item.reserve, tokens=item.tokens) for item in wishes],
            first_number=self._next_number,
            gauge=self._gauge,
            news=news,
        )
        self._settled, self._quotas, self._gate = [], [], None
        if admitted.fenced:
            self._stop(
                Stop(
                    reason=f"{self.asker.who}: another process has taken over from this one, which had lost its lock",
                    remedy="leave it to that one, or run this again when it has ended",
                    cause="fenced",
                )
            )
        self.counts.settled += sum(1 for s in settled if s.body is not None or s.outcome)
        self._pace.sent(self._now(), len(admitted.numbers))
        self._learned = admitted.learned
        if wishes:
            self._held = admitted.held
            self._admit_after = self._now() + admitted.wait
        self._next_number += len(admitted.numbers)
        for number, item in zip(admitted.numbers, wishes, strict=False):
            self._launch(number, item)
        self._ready.extendleft(reversed(wishes[len(admitted.numbers) :]))
        if admitted.over_budget is not None and not self._flights:
            # With nothing in flight no reservation of ours can come free.
            self._stop(self._over_budget(admitted.over_budget))
        elif admitted.over_budget is not None:
            self._admit_after = max(self._admit_after, self._now() + 0.05)

    def _wishes(self) -> list[_Item]:
        """The questions there is room for in the window now."""
        if self.stopped or self._now() < self._admit_after:
            return []
        room = (1 if self._probes else int(self._pace.window)) - len(self._flights)
        if room <= 0:
            return []
        while len(self._ready) < room and (question := next(self._waiting, None)) is not None:
            self._ready.append(self._item(question))
        return [self._ready.popleft() for _ in range(min(room, len(self._ready)))]

    def _left(self) -> bool:
        if not self._ready and (question := next(self._waiting, None)) is not None:
            self._ready.append(self._item(question))
        return bool(self._ready or self._cooling)

    def _thaw(self) -> None:
        """Puts the requests that have waited long enough before those never sent."""
        now = self._now()
        while self._cooling and self._cooling[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._cooling)[2])

    async def _sleep(self) -> None:
        until = [self._now() + 1.0]
        if self._cooling:
            until.append(self._cooling[0][0])
        if self._admit_after:
            until.append(self._admit_after)
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.001, min(until) - self._now()))
            await asyncio.sleep(GATHER_SECONDS)
        except TimeoutError:
            pass
        self._wake.clear()

    async def _tick(self) -> None:
        """Ends what has taken too long, and everything if the process that started this one has gone.

        Only time this process was running counts: after a laptop has slept the answers may lie in the socket.
        """
        last = self._now()
        reported = last
        while True:
            await asyncio.sleep(TICK)
            now = self._now()
            passed, last = min(now - last, 2 * TICK), now
            for flight in self._flights.values():
                flight.awake += passed
                if flight.awake > self.limits.seconds_per_request and flight.task and not flight.timed_out:
                    flight.timed_out = True
                    flight.task.cancel()
            if self._interrupted is not None:
                self._wake.set()
            if os.getppid() != self._parent:
                self._stop(
                    Stop(reason="the process that started this step has gone", remedy="run it again", cause="orphaned")
                )
            if self.report and now - reported >= REPORT_SECONDS:
                reported = now
                self._report()

    def _report(self) -> None:
        """Tells how far it is; that nobody can take the report is no reason to stop."""
        try:
            if self.report:
                self.report(self.counts)
        except Exception as error:
            log.warning("a report could not be made: %s", redaction.safe(error))

    def _now(self) -> float:
        return self._loop.time()

    # -- one attempt ---------------------------------------------------------------------------------------------

    def _item(self, request: Request) -> _Item:
        payload = encoded(self.provider.payload(request)).encode("utf-8", "surrogatepass")
        limit = request.parameters.get("max_tokens") or request.parameters.get("max_completion_tokens")
        most_output = int(limit or (self.price.max_output if self.price else 0) or 0)
        # A byte is the smallest token there is, so this is the most the request can cost.
        reserve = self.price.cost(len(payload), most_output) if self.price else 0
        likely_output = int(limit) if limit and self.provider.counts_limit() else min(int(limit or 512), 512)
        return _Item(request, payload, reserve, tokens=len(payload) // 4 + likely_output)

    def _launch(self, number: int, item: _Item) -> None:
        self.counts.sent += 1
        flight = _Flight(item, number, self._now())
        self._flights[number] = flight
        flight.task = self._loop.create_task(self._fly(flight))

    async def _fly(self, flight: _Flight) -> None:
        try:
            settled = await self._attempt(flight)
        except asyncio.CancelledError:
            # Ours, for a timeout; or the loop's own, when a drain has taken too long.
            if flight.timed_out and not flight.on_the_wire:
                settled = self._failed(flight, "unreachable", "no connection in time")
            else:
                settled = self._unknown(flight, "timeout" if flight.timed_out else "abandoned", "no answer in time")
        except Exception as error:
            # Nothing that comes from outside may end an attempt without a trace.
            settled = self._unknown(flight, "malformed", redaction.safe(error))
        finally:
            del self._flights[flight.number]
        if settled is not None:
            self._settled.append(settled)
        self._wake.set()

    async def _attempt(self, flight: _Flight) -> Settled | None:
        import aiohttp

        crash_points.reach("before_send")
        headers = {"X-Client-Request-Id": f"nift-{self.session}-{flight.number}"}
        try:
            async with self._http.post(
                self.provider.url,
                data=flight.item.payload,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=flight,
            ) as response:
                body = await _read(response)
        except aiohttp.ClientConnectorError as error:
            return self._failed(flight, "unreachable", redaction.safe(error))
        except _TooLarge as error:
            return self._unknown(flight, "malformed", str(error))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not flight.on_the_wire:
                return self._failed(flight, "unreachable", redaction.safe(error))
            return self._unknown(flight, "disconnected", redaction.safe(error))
        crash_points.reach("after_body")
        body = self._secrets.body(body)
        try:
            return self._understand(flight, response.status, response.headers, body)
        except Exception as error:
            why = f"the response is no whole answer: {redaction.safe(error)}"
            return self._unknown(flight, "malformed", why, response.status, response.headers, body)

    def _understand(self, flight: _Flight, status: int, raw_headers: Mapping[str, str], body: bytes) -> Settled | None:
        """How an attempt ended that has a response. Raises whatever reading a response that is none may raise."""
        headers = {name.lower(): value for name, value in raw_headers.items()}
        self._listen(headers)
        if status == 200:
            return self._answered(flight, status, headers, body, self.provider.read(json.loads(body)))
        if 200 < status < 300:
            return self._unknown(flight, "malformed", f"HTTP {status} is no answer", status, headers, body)
        if 300 <= status < 400:
            trouble = Trouble(
                kind="stop",
                cause="redirected",
                message=f"{self.provider.url} redirects ({status}), and a key is sent to no other place",
                remedy="set base_url in the row to the server's real address",
            )
        else:
            trouble = self.provider.trouble(status, headers, body)
        return self._in_trouble(flight, status, headers, body, trouble)

    def _listen(self, headers: Mapping[str, str]) -> None:
        """Takes what the headers say of the limits; what cannot be read there spoils no answer."""
        try:
            if quota := self.provider.quota(headers):
                self._quotas.append(quota)
        except Exception as error:
            log.warning("the limits in the headers cannot be read: %s", redaction.safe(error))

    def _answered(
        self, flight: _Flight, status: int, headers: Mapping[str, str], body: bytes, reading: Reading
    ) -> Settled:
        self._succeeded(flight.left_at)
        spent = 0
        if self.price:
            known = reading.input_tokens is not None and reading.output_tokens is not None
            # A response that does not count its tokens is booked at the most it can have cost.
            cost = self.price.cost(reading.input_tokens or 0, reading.output_tokens or 0)
            spent = cost if known else flight.item.reserve
        self.counts.output_tokens += reading.output_tokens or 0
        self.counts.spent += spent
        return Settled(
            number=flight.number,
            key=flight.item.request.key,
            state="answered",
            reserved=flight.item.reserve,
            spent=spent,
            http_status=status,
            request_id=_request_id(headers),
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            headers=self._secrets.headers(headers),
            body=body,
        )

    def _in_trouble(
        self, flight: _Flight, status: int, headers: Mapping[str, str], body: bytes, trouble: Trouble
    ) -> Settled | None:
        item = flight.item
        message = redaction.redact(trouble.message)
        safe_body = redaction.redact(body[:EVIDENCE_BYTES].decode("utf-8", "replace")).encode()
        settled = Settled(
            number=flight.number,
            key=item.request.key,
            state="failed",
            reserved=item.reserve,
            cause=trouble.cause,
            http_status=status,
            request_id=_request_id(headers),
            evidence=safe_body,
        )
        kind = trouble.kind
        if kind == "row":
            # What has been accepted from others is wrong with this text, not with the row of the study.
            kind = "reject" if self._successes else "stop"
        match kind:
            case "stop":
                who = f"{self.asker.who}: {self.provider.name} answers {status} {message[:500]}"
                self._stop(Stop(reason=who, remedy=trouble.remedy, cause=trouble.cause))
                self._ready.append(item)
            case "reject":
                self._refuse(replace(settled, headers=self._secrets.headers(headers), body=safe_body), message)
                return None
            case "unclear":
                return self._unknown(flight, trouble.cause, message, status, headers, body)
            case "wait":
                return self._turned_away(settled, flight, headers)
            case "again":
                return self._try_again(settled, item, trouble.cause, message, _asked_wait(headers))
        return settled

    def _turned_away(self, settled: Settled, flight: _Flight, headers: Mapping[str, str]) -> Settled:
        item, now = flight.item, self._now()
        item.turned_away += 1
        item.first_turned_away = item.first_turned_away if item.first_turned_away is not None else now
        if now - item.first_turned_away > self.limits.patience_seconds:
            return replace(settled, outcome="exhausted", detail=f"turned away {item.turned_away} times")
        self._pace.turned_away(now, flight.left_at)
        self._last_through = self._last_through if self._last_through is not None else now
        if now - self._last_through > self.limits.patience_seconds:
            seconds = f"{now - self._last_through:,.0f} s"
            reason = f"{self.asker.who}: {self.provider.name} has turned everything away for {seconds}"
            remedy = "see the account's limits (one per day, perhaps), then run again: only the rest is asked"
            self._stop(Stop(reason=reason, remedy=remedy, cause="rate_limit"))
        asked = _asked_wait(headers)
        wait = asked if asked is not None else self._backoff(min(item.turned_away, 6))
        quota = self.provider.quota(headers)
        if quota and 0 in (quota.requests_left, quota.tokens_left) and asked:
            # The headers themselves say that nobody gets through before then.
            self._gate = max(self._gate or 0.0, asked)
        self._cool(item, wait)
        return settled

    def _try_again(
        self, settled: Settled, item: _Item, cause: str, message: str, asked: float | None = None
    ) -> Settled:
        item.tries += 1
        self._failed_once(item, f"{cause}: {message}")
        if item.tries >= MOST_TRIES:
            return replace(settled, outcome="exhausted", detail=f"{cause}: {message}"[:500])
        wait = self._backoff(item.tries)
        self._cool(item, max(wait, asked) if asked is not None else wait)
        return settled

    def _failed(self, flight: _Flight, cause: str, message: str) -> Settled:
        """An attempt that never reached the server and costs nothing."""
        settled = Settled(
            number=flight.number,
            key=flight.item.request.key,
            state="failed",
            reserved=flight.item.reserve,
            cause=cause,
            evidence=message.encode(),
        )
        return self._try_again(settled, flight.item, cause, message)

    def _unknown(
        self,
        flight: _Flight,
        cause: str,
        message: str,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Settled:
        """An attempt that may have been billed without an answer that counts: it stays reserved."""
        item = flight.item
        item.unknown += 1
        self._failed_once(item, f"{cause}: {message}")
        outcome: Status | None = None
        if item.unknown >= MOST_UNKNOWN:
            outcome = "unknown"
        elif cause == "abandoned":
            pass  # the next run asks again
        else:
            self._cool(item, self._backoff(item.unknown))
        return Settled(
            number=flight.number,
            key=item.request.key,
            state="unknown",
            reserved=item.reserve,
            cause=cause,
            http_status=status,
            request_id=_request_id(headers or {}),
            evidence=(body or message.encode())[:EVIDENCE_BYTES],
            outcome=outcome,
            detail=f"{cause}: {message}"[:500] if outcome else None,
        )

    # -- what is learned from it -----------------------------------------------------------------------------------

    def _succeeded(self, left_at: float) -> None:
        self._successes += 1
        self._failures_in_row = self._probes = 0
        self._last_through = self._now()
        self._pace.came_through(self._last_through)
        self._believe_refusals(before=left_at)

    def _failed_once(self, item: _Item, what: str) -> None:
        """Counts a failure in a row; with too many the circuit opens, and dispatch ends if that does not help.

        Only first tries count: that a request fails which failed before says little about the server.
        """
        if not self._probes and item.tries + item.unknown > 1:
            return
        self._failures_in_row += 1
        self._pace.overloaded(self._now())
        if self._failures_in_row < BREAK_AFTER:
            return
        if self._probes and len(self._flights) > 1:
            return  # those that were under way when the circuit opened
        self._probes += 1
        if self._probes > MOST_PROBES:
            reason = f"{self.asker.who}: {self.provider.url} fails every time ({what})"
            remedy = "run it again when the server is back; what was answered is kept"
            self._stop(Stop(reason=reason, remedy=remedy, cause="unreachable"))
            return
        self._admit_after = self._now() + self._backoff(self._probes)

    def _refuse(self, refusal: Settled, message: str) -> None:
        """Takes a refusal for final only when something that left after it comes back otherwise.

        If nothing but the same refusal comes it is the row or the account that is wrong, not the texts: then dispatch
        ends, and none of them is refused for good.
        """
        if message != self._refusal:
            self._believe_refusals()
        self._refusal = message
        self._refused.append((self._now(), refusal))
        if len(self._refused) >= REFUSED_ALIKE:
            reason = f"{self.asker.who}: every request is refused alike: {message[:500]}"
            remedy = "change the row's parameters or its model, or see to the account, then run again"
            self._stop(Stop(reason=reason, remedy=remedy, cause="rejected"))
            self._doubt_refusals()

    def _doubt_refusals(self) -> None:
        self._settled += [replace(each, body=None, headers=None) for _, each in self._refused]
        self._refused = []

    def _believe_refusals(self, *, before: float = math.inf) -> None:
        self._settled += [each for at, each in self._refused if at < before]
        self._refused = [(at, each) for at, each in self._refused if at >= before]

    def _stop(self, stop: Stop) -> None:
        if self.stopped is None:
            self.stopped = stop
            self._stopped_at = self._now()
        self._wake.set()

    def _drained_long_enough(self) -> bool:
        if self._stopped_at is None or self._now() - self._stopped_at < DRAIN_SECONDS:
            return False
        for flight in self._flights.values():
            if flight.task:
                flight.task.cancel()
        return not self._flights

    def _over_budget(self, who: str) -> Stop:
        cap = dict(self.asker.caps())[who] or 0
        account = f"{self.asker.study}/{who}" if who else f"the study {self.asker.study}"
        remedy = "raise it in the row or by NIFT_BUDGET_USD and run again" if not who else "raise it in the row"
        return Stop(
            reason=f"budget reached: the cap of {account} is ${cap / 1e9:,.2f} and leaves no room for one more request",
            remedy=f"{remedy}; what was answered is kept, and only the rest is asked then",
            cause="budget",
        )

    def _cool(self, item: _Item, seconds: float) -> None:
        heapq.heappush(self._cooling, (self._now() + seconds, next(self._order), item))

    def _backoff(self, tries: int) -> float:
        """Twice as long each time, with a quarter of jitter, so that those who failed together do not come together."""
        longest: float = self.limits.backoff_seconds * 2.0 ** (tries - 1)
        return min(MOST_WAIT, longest) * self._chance.uniform(0.75, 1.25)

    # -- the connection ------------------------------------------------------------------------------------------

    def _connect(self) -> aiohttp.ClientSession:
        import aiohttp

        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_leaves)
        if crash_points.reach is not crash_points._pass:
            trace.on_request_chunk_sent.append(_after_send)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            # Ours counts only the time this process was running, see `_tick`.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            headers={
                **self.provider.headers(),
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "nift",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy named by the environment would see what it should not
            trace_configs=[trace],
        )


class _TooLarge(Exception):
    pass


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, unless it is larger than any answer can be."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST_BYTES:
            response.close()
            raise _TooLarge(f"the response is larger than {MOST_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


async def _leaves(_: Any, context: Any, __: Any) -> None:
    """Marks an attempt whose first byte is about to leave: one that fails before that has cost nothing."""
    context.trace_request_ctx.on_the_wire = True


async def _after_send(*_: Any) -> None:
    crash_points.reach("after_send")


def _request_id(headers: Mapping[str, str]) -> str | None:
    return headers.get("x-request-id") or headers.get("request-id")


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds the server wants us to wait, at most a minute whatever it says; None where it says nothing usable.

    A date is taken against the server's own `Date`, so that a wrong clock on either side does no harm.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(MOST_WAIT, max(0.0, milliseconds / 1000))
    said = headers.get("retry-after")
    if said is None:
        return None
    if (seconds := _number(said)) is not None:
        return min(MOST_WAIT, max(0.0, seconds))
    try:
        until = parsedate_to_datetime(said).timestamp()
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
    except (ValueError, TypeError):
        return None
    return min(MOST_WAIT, max(0.0, until - now))


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number == number else None  # not a number is not a wait
