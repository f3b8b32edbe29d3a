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
from dataclasses import dataclass, field
from typing import Any

from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.database import AT_A_TIME
from nift_assets.ledger.dispatch import Dispatch, dearest, over_budget
from nift_assets.ledger.progress import Counts, Stop
from nift_assets.protocol.answer import Answer
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


@dataclass(frozen=True, kw_only=True)
class AskResult:
    """What a call of the door came to: one answer per question, in order, and why it stopped early if it did."""

    answers: Sequence[Answer]
    stopped: Stop | None
    sent: int
    seconds: float
    spent: int
    written: int
    counts: Mapping[str, int] = field(default_factory=dict)


def ask(
    book: Book,
    asker: Asker,
    questions: Sequence[Request],
    provider: InProcess | Remote | Callable[[], InProcess | Remote],
    *,
    limits: Limits | None = None,
    price: Price | Callable[[], Price | None] | None = None,
    report: Callable[[Counts], None] | None = None,
) -> AskResult:
    """One answer per question, in order; only what has no final answer in the book reaches the provider.

    A provider and a price that are given as functions are only asked for when something has to be asked: what is in the
    book can be read without a key, a budget or a model that still answers.

    Raises ValueError if another process asks as the same writer, or if questions are under way in a batch.
    """
    began = time.monotonic()
    by_key = {question.key: question for question in questions}
    with book.session(asker.writer) as session:
        done, stopped = _bring_in(book, session, asker, by_key, provider, limits or Limits(), price, report)
    answered = {stored.key: answer(stored, by_key[stored.key]) for stored in book.stored(list(by_key))}
    missing = [key for key in by_key if key not in answered]
    for key, (status, detail) in book.outcomes(missing).items():
        answered[key] = Answer(key=key, status=status, detail=detail)
    answers = [answered[question.key] for question in questions]
    counts: dict[str, int] = {}
    for row in answers:
        counts[row.status] = counts.get(row.status, 0) + 1
    return AskResult(
        answers=answers,
        stopped=stopped,
        sent=done.sent,
        seconds=time.monotonic() - began,
        spent=done.spent,
        written=done.output_tokens,
        counts=counts,
    )


def _bring_in(
    book: Book,
    session: int,
    asker: Asker,
    by_key: Mapping[str, Request],
    provider: InProcess | Remote | Callable[[], InProcess | Remote],
    limits: Limits,
    price: Price | Callable[[], Price | None] | None,
    report: Callable[[Counts], None] | None,
) -> tuple[Counts, Stop | None]:
    """Asks what nobody has answered; what another process is asking is waited for, and asked here if that one dies."""
    book.open_accounts(asker)
    done = Counts()
    dispatch: Dispatch | None = None
    questions = list(by_key.values())
    while True:
        intent = book.intend(session, asker, questions)
        if intent.in_batch:
            raise ValueError(
                f"{asker.who}: {len(intent.in_batch):,} of {len(by_key):,} requests are under way in a batch; collect "
                "it when it has ended (the sensor `batches` does), or cancel it"
            )
        ours = [by_key[key] for key in intent.ours]
        if ours and callable(price):
            price = price()
        if ours and not isinstance(provider, InProcess | Remote):
            provider = provider()
        if ours and isinstance(provider, Remote):
            assert not callable(price), "it was asked for above"
            dispatch = dispatch or Dispatch(book, session, asker, provider, limits, price, report, counts=done)
            _run(dispatch, ours)
            stopped = dispatch.stopped or _passed_over(book, asker, dispatch, len(by_key))
            if stopped:
                return done, stopped
        elif ours and isinstance(provider, InProcess):
            done.sent += len(ours)
            done.output_tokens += _answer_here(book, session, provider, ours)
        if not intent.elsewhere:
            return done, None
        time.sleep(LOOK_AGAIN_SECONDS)
        book.recover()
        questions = [by_key[key] for key in intent.elsewhere]


def _passed_over(book: Book, asker: Asker, dispatch: Dispatch, wanted: int) -> Stop | None:
    """What becomes of requests that the caps have no room for. A few that no rest of a cap would ever let through are
    given up, so that the others are of use; for any that a larger rest would, a person is asked."""
    if not dispatch.passed_over:
        return None
    caps = [cap for _, cap in asker.caps() if cap is not None]
    hopeless = [(request, amount) for request, amount in dispatch.passed_over if amount > min(caps)]
    if len(hopeless) < len(dispatch.passed_over) or len(hopeless) > MOST_PASSED_OVER * wanted:
        return over_budget(asker, str(dispatch.over_budget), dispatch.passed_over)
    detail = f"passed over: up to ${{:,.2f}}, more than the whole cap of ${min(caps) / 1e9:,.2f}; raise the cap"
    for request, amount in hopeless:
        book.give_up([request.key], "exhausted", detail.format(amount / 1e9))
    log.warning("%s: %s of %s requests are passed over, %s", asker.who, len(hopeless), wanted, dearest(hopeless))
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


def _run(dispatch: Dispatch, questions: Sequence[Request]) -> None:
    """Runs the dispatch in a thread of its own, so that an interruption lets what is in flight come back first.

    Dagster and Ctrl-C interrupt with an exception in the main thread; a plain SIGTERM is made one.
    """
    if not questions:
        return
    failure: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            asyncio.run(dispatch.run(questions))
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
