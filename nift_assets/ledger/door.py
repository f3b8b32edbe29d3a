"""The one door: typed questions in, one answer for each out, whatever happened."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, Protocol

from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.database import AT_A_TIME, chunks
from nift_assets.ledger.dispatch import Dispatch, dearest, over_budget
from nift_assets.ledger.locks import Lock
from nift_assets.ledger.progress import Counts, Stop
from nift_assets.ledger.question_source import QuestionSource
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
# Claiming them keeps what comes back meanwhile waiting for a tenth of a second or two.
CLAIMED_AT_A_TIME = 1_000
HELD_AT_ONCE = 2
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


class Portions(Protocol):
    """Questions by portions, each made when it is asked for: none is kept, and each may be made more than once."""

    @property
    def total(self) -> int:
        """How many questions all portions have together."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Sequence[Request]: ...

    def __iter__(self) -> Iterator[Sequence[Request]]: ...


@dataclass(frozen=True)
class OnePortion:
    """Questions that are few enough to be one portion."""

    questions: Sequence[Request]

    @property
    def total(self) -> int:
        return len(self.questions)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int, /) -> Sequence[Request]:
        return [self.questions][number]

    def __iter__(self) -> Iterator[Sequence[Request]]:
        return iter([self.questions])


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
    outcome = bring_in(book, asker, OnePortion(questions), provider, limits=limits, price=price, report=report)
    return AskResult.of(outcome, stored(book, questions))


def bring_in(
    book: Book,
    asker: Asker,
    portions: Portions,
    provider: Connects,
    *,
    numbers: Sequence[int] | None = None,
    limits: Limits | None = None,
    price: Price | Callable[[], Price | None] | None = None,
    report: Callable[[Counts], None] | None = None,
    look: Callable[[int], Stop | None] | None = None,
    release: Callable[[], None] | None = None,
) -> Outcome:
    """Sees to it that every question, or every one of the portions of some `numbers`, has its final answer in the book,
    or that it is known why not. Only what has none reaches the provider, and of the questions no more is in memory than
    a portion and what is under way.

    Several processes may ask as one writer where that is `shared`: each takes the portions that nobody else has, and at
    the end waits for those that others have. A provider and a price that are given as functions are only asked for when
    something has to be asked: what is in the book can be read without a key, a budget or a model that still answers.
    Once a portion has been asked, but for what is under way of it, `look` may say why no other should be. Who waits for
    others gives back what the provider holds (`release`), which they may be waiting for, and asks for it again.

    Raises ValueError if another process asks as the same writer, or if questions are under way in a batch.
    """
    began = time.monotonic()
    with book.session(asker.writer, shared=asker.shared) as session:
        claims = _Claims(book, session, asker, portions, range(len(portions)) if numbers is None else numbers, look)
        try:
            done, stopped = _bring_in(
                book, session, asker, claims, provider, limits or Limits(), price, report, release
            )
        finally:
            claims.let_go()
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


class _Claims:
    """The questions of a call, claimed as they are drawn, a portion after the other.

    A portion that another process has is left for later, and so is a question that another session is asking: `later`
    has their places, or None for a whole portion. What goes wrong while questions are drawn ends the drawing and is the
    `failure`, so that what is under way still comes back.
    """

    def __init__(
        self,
        book: Book,
        session: int,
        asker: Asker,
        portions: Portions,
        numbers: Sequence[int],
        look: Callable[[int], Stop | None] | None,
    ) -> None:
        self._book, self._session, self._asker, self._portions = book, session, asker, portions
        self._look = look
        self._held: dict[int, Lock] = {}
        self._seen: set[bytes] = set()
        self.later: dict[int, Sequence[int] | None] = dict.fromkeys(numbers)
        is_whole = len(numbers) == len(portions)
        wanted = portions.total if is_whole else sum(len(portions[number]) for number in numbers)
        self.counts = Counts(wanted=wanted, portions=len(portions))
        self.stopped: Stop | None = None
        self.failure: Exception | None = None

    def drawn(self) -> Iterator[list[Request]]:
        """What is ours to ask of what was left for later, which in the beginning is all, as it is claimed."""
        places, self.later = self.later, {}
        try:
            for number, of_portion in places.items():
                if not self._has_turn(number):
                    self.later[number] = of_portion
                    continue
                self.counts.portion = number + 1
                asked = False
                for questions in self._of_portion(number, of_portion):
                    asked = True
                    yield questions
                if asked and self._look and (stop := self._look(number)):
                    self.stopped = stop
                    return
        except Exception as error:
            self.failure = error

    def _has_turn(self, number: int) -> bool:
        """Whether a portion is this process's. It stays so while the next is drawn: what is still under way then is
        known by its session."""
        if not self._asker.shared:
            return True
        turn = self._book.locks.hold(f"portion {number} of {self._asker.writer}")
        if turn is None:
            return False
        self._held[number] = turn
        self.let_go(all_but=HELD_AT_ONCE)
        return True

    def let_go(self, all_but: int = 0) -> None:
        """Leaves the portions to others, all but the last so many."""
        for number in list(self._held)[: len(self._held) - all_but]:
            self._held.pop(number).release()

    def _of_portion(self, number: int, places: Sequence[int] | None) -> Iterator[list[Request]]:
        portion = self._portions[number]
        for some in chunks(range(len(portion)) if places is None else places, CLAIMED_AT_A_TIME):
            new = {}
            for place in some:
                key = portion[place].key
                if places is not None or self._is_new(key):
                    new[key] = place
            intent = self._book.intend(self._session, self._asker, [portion[place] for place in new.values()])
            if intent.in_batch:
                raise ValueError(
                    f"{self._asker.who}: {len(intent.in_batch):,} of {len(portion):,} requests are under way in a "
                    "batch; collect it when it has ended (the sensor `batches` does), or cancel it"
                )
            if intent.elsewhere:
                waits_for = [new[key] for key in intent.elsewhere]
                self.later[number] = [*(self.later.get(number) or ()), *waits_for]
            self.counts.settled += len(some) - len(intent.ours) - len(intent.elsewhere)
            if intent.ours:
                yield [portion[new[key]] for key in intent.ours]

    def _is_new(self, key: str) -> bool:
        """Whether a question comes for the first time: one that comes twice is asked once."""
        short = bytes.fromhex(key)
        is_new = short not in self._seen
        self._seen.add(short)
        return is_new


def _bring_in(
    book: Book,
    session: int,
    asker: Asker,
    claims: _Claims,
    provider: Connects,
    limits: Limits,
    price: Price | Callable[[], Price | None] | None,
    report: Callable[[Counts], None] | None,
    release: Callable[[], None] | None,
) -> tuple[Counts, Stop | None]:
    """Asks what nobody has answered; what another process is asking is waited for, and asked here if that one dies."""
    book.open_accounts(asker)
    given, done = provider, claims.counts
    dispatch: Dispatch | None = None
    while True:
        drawn = claims.drawn()
        first = next(drawn, None)
        if first is not None and callable(price):
            price = price()
        if first is not None and not isinstance(provider, InProcess | Remote):
            provider = provider()
        questions = chain([] if first is None else [first], drawn)
        if first is not None and isinstance(provider, Remote):
            assert not callable(price), "it was asked for above"
            dispatch = dispatch or Dispatch(book, session, asker, provider, limits, price, report, counts=done)
            _run(dispatch, questions)
            stopped = dispatch.stopped or _passed_over(book, asker, dispatch, done.wanted)
            if stopped and claims.failure is None:
                return done, stopped
        elif first is not None and isinstance(provider, InProcess):
            for some in questions:
                done.sent += len(some)
                done.output_tokens += _answer_here(book, session, provider, some)
                done.settled += len(some)
                _tell(report, done)
        if claims.failure is not None:
            raise claims.failure
        if claims.stopped is not None or not claims.later:
            return done, claims.stopped
        claims.let_go()
        provider = given
        if release is not None:
            release()
        _wait_for(claims, report)
        book.recover()


def _wait_for(claims: _Claims, report: Callable[[Counts], None] | None) -> None:
    if not claims.counts.waits:
        claims.counts.waits = True
        whole = sum(places is None for places in claims.later.values())
        some = sum(len(places or ()) for places in claims.later.values())
        what = f"{whole} of {claims.counts.portions} portions" if whole else f"{some:,} of them"
        claims.counts.news = f"{what} are asked by another process; waiting for it"
        _tell(report, claims.counts)
        claims.counts.news = None
    time.sleep(LOOK_AGAIN_SECONDS)


def _tell(report: Callable[[Counts], None] | None, counts: Counts) -> None:
    if report is not None:
        report(counts)


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


def _run(dispatch: Dispatch, drawn: Iterable[Sequence[Request]]) -> None:
    """Runs the dispatch in a thread of its own, so that an interruption lets what is in flight come back first, and
    draws its questions meanwhile.

    Dagster and Ctrl-C interrupt with an exception in the main thread; a plain SIGTERM is made one.
    """
    failure: list[BaseException] = []
    ended, source = threading.Event(), QuestionSource()

    def work() -> None:
        try:
            asyncio.run(dispatch.run(source))
        except BaseException as error:
            failure.append(error)
        finally:
            source.give_up()
            ended.set()

    # A daemon: a drain that takes longer than its grace must not keep the process.
    thread = threading.Thread(target=work, name="door", daemon=True)
    with _interruptible(), _frozen():
        try:
            thread.start()
            for questions in drawn:
                if not source.put(questions):
                    break
            source.complete()
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
