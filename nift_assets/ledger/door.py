"""The one door: typed questions in, one answer for each out, whatever happened."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.database import AT_A_TIME
from nift_assets.ledger.dispatch import Dispatch, dearest, over_budget
from nift_assets.ledger.progress import Counts, Stop
from nift_assets.protocol.answer import Answer, Status
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import InProcess, Remote
from nift_assets.providers import answer
from nift_assets.rows import Limits, Price

log = logging.getLogger(__name__)

# So large a share of all may be too dear for the whole cap, and the others are of use: the contract of completions lets
# no more go without an answer.
MOST_PASSED_OVER = 0.2
# What was in flight at an interruption is waited for so long, and a little longer for its commit.
GRACE_SECONDS = 35.0
LOOK_AGAIN_SECONDS = 0.5
KEEP_SECONDS = 1.0


@dataclass
class Totals:
    """What answers come to, added up as they are read: how many of each status, and their tokens."""

    counts: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0

    def add(self, answers: Sequence[Answer]) -> None:
        for row in answers:
            self.counts[row.status] = self.counts.get(row.status, 0) + 1
            self.input_tokens += row.input_tokens or 0
            self.output_tokens += row.output_tokens or 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What bringing questions in came to: why it stopped early if it did, and what it sent, spent and had written."""

    stopped: Stop | None
    sent: int
    seconds: float
    spent: int
    written: int


@dataclass(frozen=True, kw_only=True)
class AskResult(Outcome):
    """What a call of the door came to: one answer per question, in order, and what they come to."""

    answers: Sequence[Answer]
    totals: Totals

    @classmethod
    def of(cls, outcome: Outcome, answers: Sequence[Answer]) -> AskResult:
        """An outcome with the answers that were brought in."""
        totals = Totals()
        totals.add(answers)
        known = {part.name: getattr(outcome, part.name) for part in fields(outcome)}
        return cls(**known, answers=answers, totals=totals)

    @property
    def counts(self) -> Mapping[str, int]:
        return self.totals.counts


Connects = InProcess | Remote | Callable[[], InProcess | Remote]
Portions = Sequence[Sequence[Request]]
"""Questions by portions, each made when it is asked for: none is kept, and each may be made more than once."""


def ask(
    book: Book,
    asker: Asker,
    questions: Sequence[Request],
    provider: Connects,
    *,
    limits: Limits | None = None,
    price: Price | Callable[[], Price | None] | None = None,
    report: Callable[[Counts], None] | None = None,
) -> AskResult:
    """One answer per question, in order; only what has no final answer in the book reaches the provider. The rest is
    as of `bring_in`."""
    outcome = bring_in(book, asker, [questions], provider, limits=limits, price=price, report=report)
    return AskResult.of(outcome, stored(book, questions))


def bring_in(
    book: Book,
    asker: Asker,
    portions: Portions,
    provider: Connects,
    *,
    limits: Limits | None = None,
    price: Price | Callable[[], Price | None] | None = None,
    report: Callable[[Counts], None] | None = None,
) -> Outcome:
    """Sees to it that every question has its final answer in the book, or that it is known why not. Only what has none
    reaches the provider, and of the questions no more is in memory than a portion and what is under way.

    A provider and a price that are given as functions are only asked for when something has to be asked: what is in the
    book can be read without a key, a budget or a model that still answers.

    Raises ValueError if another process asks as the same writer, or if questions are under way in a batch.
    """
    began = time.monotonic()
    with book.session(asker.writer) as session:
        done, stopped = _bring_in(book, session, asker, portions, provider, limits or Limits(), price, report)
    return Outcome(
        stopped=stopped,
        sent=done.sent,
        seconds=time.monotonic() - began,
        spent=done.spent,
        written=done.output_tokens,
    )


def stored(book: Book, questions: Sequence[Request]) -> list[Answer]:
    """What the book has to each question, in order: its answer, or how its last try ended."""
    by_key = {question.key: question for question in questions}
    answered: dict[str, Answer] = {}
    reread: dict[str, Status] = {}
    for response in book.stored(list(by_key)):
        read = answered[response.key] = answer(response, by_key[response.key])
        if read.status != response.status:
            reread[response.key] = read.status
    if reread:
        book.reread(reread)
    missing = [key for key in by_key if key not in answered]
    for key, (status, detail) in book.outcomes(missing).items():
        answered[key] = Answer(key=key, status=status, detail=detail)
    return [answered[question.key] for question in questions]


@dataclass(frozen=True)
class _Claimed:
    """The places of questions within their portions: of what this session asks, and of what another is asking."""

    ours: dict[int, list[int]]
    elsewhere: dict[int, list[int]]

    def of(self, portions: Portions) -> Iterator[list[Request]]:
        """Our questions, a portion at a time."""
        for number, places in self.ours.items():
            portion = portions[number]
            yield [portion[place] for place in places]

    def count(self) -> int:
        return sum(map(len, self.ours.values()))


def _bring_in(
    book: Book,
    session: int,
    asker: Asker,
    portions: Portions,
    provider: Connects,
    limits: Limits,
    price: Price | Callable[[], Price | None] | None,
    report: Callable[[Counts], None] | None,
) -> tuple[Counts, Stop | None]:
    """Asks what nobody has answered; what another process is asking is waited for, and asked here if that one dies."""
    book.open_accounts(asker)
    done = Counts()
    dispatch: Dispatch | None = None
    looked_at: Mapping[int, Sequence[int] | None] = dict.fromkeys(range(len(portions)))
    wanted: int | None = None
    while True:
        claimed, differing = _claim(book, session, asker, portions, looked_at)
        wanted = differing if wanted is None else wanted
        if claimed.ours and callable(price):
            price = price()
        if claimed.ours and not isinstance(provider, InProcess | Remote):
            provider = provider()
        if claimed.ours and isinstance(provider, Remote):
            assert not callable(price), "it was asked for above"
            dispatch = dispatch or Dispatch(book, session, asker, provider, limits, price, report, counts=done)
            _run(dispatch, chain.from_iterable(claimed.of(portions)), claimed.count())
            stopped = dispatch.stopped or _passed_over(book, asker, dispatch, wanted)
            if stopped:
                return done, stopped
        elif claimed.ours and isinstance(provider, InProcess):
            for questions in claimed.of(portions):
                done.sent += len(questions)
                done.output_tokens += _answer_here(book, session, provider, questions)
        if not claimed.elsewhere:
            return done, None
        time.sleep(LOOK_AGAIN_SECONDS)
        book.recover()
        looked_at = claimed.elsewhere


def _claim(
    book: Book, session: int, asker: Asker, portions: Portions, looked_at: Mapping[int, Sequence[int] | None]
) -> tuple[_Claimed, int]:
    """Writes down that the questions are wanted, or those at some places of each portion, and takes those that nobody
    has answered or is asking; also how many different ones there are. A question that comes twice is asked once."""
    seen: set[bytes] = set()
    claimed, in_batch = _Claimed({}, {}), 0
    for number, places in looked_at.items():
        portion = portions[number]
        new: dict[str, int] = {}
        for place in range(len(portion)) if places is None else places:
            key = portion[place].key
            if (short := bytes.fromhex(key)) not in seen:
                seen.add(short)
                new[key] = place
        intent = book.intend(session, asker, [portion[place] for place in new.values()])
        for keys, taken in ((intent.ours, claimed.ours), (intent.elsewhere, claimed.elsewhere)):
            if keys:
                taken[number] = [new[key] for key in keys]
        in_batch += len(intent.in_batch)
    if in_batch:
        raise ValueError(
            f"{asker.who}: {in_batch:,} of {len(seen):,} requests are under way in a batch; collect it when it has "
            "ended (the sensor `batches` does), or cancel it"
        )
    return claimed, len(seen)


def _passed_over(book: Book, asker: Asker, dispatch: Dispatch, wanted: int) -> Stop | None:
    """What becomes of requests that the caps have no room for. A few that no rest of a cap would ever let through are
    given up, so that the others are of use; for any that a larger rest would, a person is asked."""
    if not dispatch.passed_over:
        return None
    caps = [cap for _, cap in asker.caps() if cap is not None]
    passed_over = dispatch.passed_over
    hopeless = sum(amount > min(caps) for _, amount in passed_over.amounts)
    if hopeless < len(passed_over) or hopeless > MOST_PASSED_OVER * wanted:
        return over_budget(asker, str(dispatch.over_budget), passed_over)
    detail = f"passed over: up to ${{:,.2f}}, more than the whole cap of ${min(caps) / 1e9:,.2f}; raise the cap"
    for key, amount in passed_over.amounts:
        book.give_up([key], "exhausted", detail.format(amount / 1e9))
    log.warning("%s: %s of %s requests are passed over, %s", asker.who, hopeless, wanted, dearest(passed_over))
    return None


def _answer_here(book: Book, session: int, provider: InProcess, questions: Sequence[Request]) -> int:
    """The tokens of answers made in this process, kept as they come: by the second, or by the portion where they come
    fast."""
    here: list[tuple[str, int, bytes]] = []
    kept_at, written = time.monotonic(), 0
    try:
        for question, body in provider.answer(questions):
            raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
            here.append((question.key, 400 if "error" in body else 200, raw))
            written += (body.get("usage") or {}).get("completion_tokens") or 0
            if len(here) == AT_A_TIME or time.monotonic() - kept_at > KEEP_SECONDS:
                book.keep(session, here)
                here, kept_at = [], time.monotonic()
    finally:
        book.keep(session, here)
    return written


def _run(dispatch: Dispatch, questions: Iterator[Request], count: int) -> None:
    """Runs the dispatch in a thread of its own, so that an interruption lets what is in flight come back first.

    Dagster and Ctrl-C interrupt with an exception in the main thread; a plain SIGTERM is made one.
    """
    failure: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            asyncio.run(dispatch.run(questions, count))
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()

    # A daemon: a drain that takes longer than its grace must not keep the process.
    thread = threading.Thread(target=work, name="door", daemon=True)
    with _interruptible(), _frozen():
        try:
            thread.start()
            # Not `thread.join`: interrupted there, Python 3.11 takes the thread for ended while it goes on.
            while not ended.wait(0.2):
                pass
        except BaseException:
            dispatch.stop(
                Stop(reason="interrupted", remedy="run it again: only the rest is asked", cause="interrupted")
            )
            ended.wait(GRACE_SECONDS)
            raise
    if failure:
        raise failure[0]


@contextmanager
def _frozen() -> Iterator[None]:
    """Keeps the garbage collector from going through all that was there before, which costs a tenth of the CPU."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as an exception, where nobody else has a use for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL:
        yield
        return

    def interrupt(*_: Any) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
