"""The parts of a run by themselves: what each owns, and what it says of it. `test_faults` has them all together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets.ledger.book import AttemptResult
from nift_assets.ledger.circuit_breaker import BREAK_AFTER, MOST_PROBES, CircuitBreaker
from nift_assets.ledger.connection import Failure, Response
from nift_assets.ledger.in_flight import Attempt, InFlight
from nift_assets.ledger.packing import COMMON, packed, unpacked
from nift_assets.ledger.question_source import QuestionSource
from nift_assets.ledger.refusals import REFUSED_ALIKE, Refusals
from nift_assets.ledger.request_queue import QueuedRequest, RequestQueue
from nift_assets.ledger.tables import metadata
from nift_assets.protocol import Request
from nift_assets.providers import chat_completion
from tests.ledger.asking import question, questions
from tests.ledger.fault_server import expected_text


def refusal(number: int) -> AttemptResult:
    return AttemptResult(number=number, key=str(number), state="failed", reserved=5, body=b"no", headers="{}")


def test_a_refusal_is_final_once_a_request_that_left_after_it_is_answered() -> None:
    refusals = Refusals()
    assert refusals.add(refusal(1), "too long", now=10.0).settled == []
    assert refusals.add(refusal(2), "too long", now=20.0).settled == []
    assert refusals.believe(before=15.0) == [refusal(1)]
    assert len(refusals) == 1


def test_a_refusal_in_other_words_makes_those_before_it_final() -> None:
    refusals = Refusals()
    refusals.add(refusal(1), "too long", now=10.0)
    ruling = refusals.add(refusal(2), "not in that language", now=11.0)
    assert (ruling.settled, ruling.stop, len(refusals)) == ([refusal(1)], False, 1)


def test_refusals_that_are_all_alike_end_the_run_and_none_is_final() -> None:
    refusals = Refusals()
    rulings = [refusals.add(refusal(number), "no such account", now=float(number)) for number in range(REFUSED_ALIKE)]
    assert [ruling.stop for ruling in rulings] == [False] * (REFUSED_ALIKE - 1) + [True]
    assert [attempt.number for attempt in rulings[-1].settled] == list(range(REFUSED_ALIKE))
    assert not any(attempt.body or attempt.headers for attempt in rulings[-1].settled)
    assert not refusals


def fail(breaker: CircuitBreaker, times: int, *, in_flight: int = 1) -> list[str]:
    return [breaker.failed(first_try=True, in_flight=in_flight) for _ in range(times)]


def test_the_circuit_opens_after_so_many_failures_in_a_row_and_breaks_after_so_many_probes() -> None:
    breaker = CircuitBreaker()
    assert fail(breaker, BREAK_AFTER - 1) == ["counted"] * (BREAK_AFTER - 1)
    assert not breaker.open
    assert fail(breaker, MOST_PROBES) == ["probe"] * MOST_PROBES
    assert breaker.open
    assert fail(breaker, 1) == ["broken"]


def test_one_success_closes_the_circuit() -> None:
    breaker = CircuitBreaker()
    fail(breaker, BREAK_AFTER)
    assert breaker.open
    breaker.succeeded()
    assert not breaker.open
    assert fail(breaker, BREAK_AFTER - 1) == ["counted"] * (BREAK_AFTER - 1)


def test_what_was_under_way_when_the_circuit_opened_is_no_probe() -> None:
    breaker = CircuitBreaker()
    fail(breaker, BREAK_AFTER)
    assert fail(breaker, 30, in_flight=2) == ["counted"] * 30
    assert fail(breaker, 1) == ["probe"]


def test_a_request_that_failed_before_says_nothing_of_the_server_until_the_circuit_is_open() -> None:
    breaker = CircuitBreaker()
    again = [breaker.failed(first_try=False, in_flight=1) for _ in range(2 * BREAK_AFTER)]
    assert again == ["ignored"] * 2 * BREAK_AFTER
    fail(breaker, BREAK_AFTER)
    assert breaker.failed(first_try=False, in_flight=1) == "probe"


def queue_of(asked: list[Request]) -> tuple[RequestQueue, list[Request]]:
    """A queue, and the questions it has made ready so far."""
    prepared: list[Request] = []

    def prepare(request: Request) -> QueuedRequest:
        prepared.append(request)
        return QueuedRequest(request, b"", amount=0, tokens=1)

    queue = RequestQueue(prepare)
    queue.fill(QuestionSource.of(asked))
    return queue, prepared


def texts(taken: list[QueuedRequest]) -> list[str]:
    return [queued.request.messages[-1].content for queued in taken]


def test_a_question_is_made_ready_only_when_there_is_room_for_it() -> None:
    queue, prepared = queue_of(questions(100))
    assert texts(queue.take(3)) == ["text 0", "text 1", "text 2"]
    assert len(prepared) == 3


def test_what_could_not_leave_is_the_next_to_leave_in_its_order() -> None:
    queue, _ = queue_of(questions(5))
    taken = queue.take(3)
    queue.put_back(taken[1:])
    assert texts(queue.take(9)) == ["text 1", "text 2", "text 3", "text 4"]


def test_a_request_waits_before_it_is_tried_again_and_then_goes_before_those_never_sent() -> None:
    queue, _ = queue_of([question("first"), question("second"), question("third")])
    (first,) = queue.take(1)
    queue.delay(first, until=10.0)
    queue.release(9.9)
    assert (texts(queue.take(1)), queue.next_release()) == (["second"], 10.0)
    queue.release(10.0)
    assert texts(queue.take(2)) == ["first", "third"]
    assert queue.empty()


def test_a_queue_is_not_empty_while_a_request_waits() -> None:
    queue, _ = queue_of(questions(1))
    taken = queue.take(1)
    assert queue.empty()
    queue.delay(taken[0], until=10.0)
    assert not queue.empty()


@pytest.mark.parametrize("way", ["time", "a drain"])
def test_an_attempt_that_is_ended_before_it_has_begun_still_comes_to_its_end(way: str) -> None:
    ends: list[Failure] = []

    async def launched() -> int:
        in_flight = InFlight(0.25, lambda _, outcome: ends.append(cast("Failure", outcome)))
        end = (lambda: in_flight.pass_time(1.0)) if way == "time" else in_flight.abandon
        queued = QueuedRequest(question("text"), b"", amount=0, tokens=1)
        in_flight.launch(Attempt(queued, 1, 0.0), lambda _: asyncio.get_running_loop().create_future())
        for _ in range(4):
            end()
            await asyncio.sleep(0)
        return len(in_flight)

    assert asyncio.run(launched()) == 0
    cause = {"time": "unreachable", "a drain": "abandoned"}[way]
    assert [failure.cause for failure in ends] == [cause]


def test_an_attempt_whose_outcome_cannot_be_taken_is_told_of_as_malformed() -> None:
    ends: list[Failure] = []

    def ended(_: Attempt, outcome: Response | Failure) -> None:
        if isinstance(outcome, Response):
            raise LookupError("nobody foresaw this")
        ends.append(outcome)

    async def post(_: Attempt) -> Response:
        return Response(status=200, headers={}, body=b"")

    async def launched() -> int:
        in_flight = InFlight(60.0, ended)
        in_flight.launch(Attempt(QueuedRequest(question("text"), b"", amount=0, tokens=1), 1, 0.0), post)
        await asyncio.sleep(0.01)
        return len(in_flight)

    assert asyncio.run(launched()) == 0
    assert [(failure.cause, failure.sent) for failure in ends] == [("malformed", True)]


BODIES = [
    json.dumps(
        chat_completion(model="m", text=expected_text(text, "m"), finish_reason="stop", input_tokens=9, output_tokens=8)
    ).encode()
    for text in ("one", "another", "third")
]


def test_the_names_that_stand_in_users_ledgers_are_those_of_the_first_ones() -> None:
    """Whoever renames one of them makes every ledger there is unreadable."""
    stored = {table.name: [column.name for column in table.columns] for table in metadata.sorted_tables}
    assert stored == {
        "schema": ["version"],
        "high_water": ["ledger", "commits", "answers"],
        "sessions": ["id", "writer", "host", "pid", "began_at", "ended"],
        "requests": [
            *("number", "key", "provider", "model", "body", "intended_at"),
            *("claimed_by", "in_batch", "outcome", "detail", "limitless"),
        ],
        "wanted": ["request", "study", "who"],
        "question_counts": ["study", "who", "state", "reused", "slot", "questions"],
        "attempts": [
            *("session", "number", "key", "study", "who", "batch", "state", "cause", "http_status", "request_id"),
            *("sent_at", "input_tokens", "output_tokens", "reserved", "spent", "evidence"),
        ],
        "answers": [
            "key",
            "session",
            "number",
            "http_status",
            "status",
            "headers",
            "body",
            "answered_at",
            "digest",
            "taken_from",
        ],
        "spending": ["study", "who", "spent", "reserved", "sent", "input_tokens", "output_tokens"],
        "gauges": [
            *("name", "requests_per_minute", "tokens_per_minute", "requests_left", "tokens_left", "measured_at"),
            *("learned", "learned_at", "gate_until"),
        ],
        "batches": [
            *("id", "study", "who", "provider", "model", "requests", "state", "file_id", "provider_id", "proven"),
            *(
                "stranger_ids",
                "intended_at",
                "tried_at",
                "listed_until",
                "submitted_at",
                "ended_at",
                "polled_at",
                "polls_failed",
            ),
            *("downloads_torn", "detail", "remedy", "counts"),
        ],
    }


@settings(deadline=None)
@given(st.binary(max_size=3_000) | st.text().map(str.encode) | st.sampled_from(BODIES))
def test_what_is_packed_comes_out_as_it_was(content: bytes) -> None:
    assert unpacked(packed(content)) == content
    assert len(packed(content)) <= len(content) + 1


def test_what_was_packed_once_is_read_for_good() -> None:
    """Every answer in every ledger was packed with these bytes in front of it."""
    assert hashlib.sha256(COMMON).hexdigest() == "25734d9741fbe15c497df5a0c2b90ff885e0d44a5d456b5ead9a649ed7db1d80"
    with pytest.raises(ValueError, match="nothing is packed as"):
        unpacked(b"\x07?")


def test_a_response_takes_at_most_six_tenths_of_its_bytes() -> None:
    for body in BODIES:
        assert len(packed(body)) < 0.6 * len(body)


def test_questions_come_while_others_are_sent_and_the_end_is_where_no_more_will_come() -> None:
    source, arrived = QuestionSource(), list[int]()
    source.arrived = lambda: arrived.append(1)
    queue = RequestQueue(lambda request: QueuedRequest(request, b"", 0, 0))
    queue.fill(source)
    assert (queue.take(2), queue.empty()) == ([], False), "there may be more"
    assert source.put(questions(2)) is True
    assert texts(queue.take(3)) == ["text 0", "text 1"]
    assert source.put(questions(1, first=2)) is True
    source.complete()
    assert not queue.empty()
    assert texts(queue.take(3)) == ["text 2"]
    assert queue.empty()
    assert len(arrived) == 3


def test_who_draws_waits_for_who_sends_and_not_for_one_that_sends_no_more() -> None:
    source, put = QuestionSource(), list[bool]()
    drawing = threading.Thread(target=lambda: put.extend(source.put(questions(1, first=n)) for n in range(9)))
    drawing.start()
    drawing.join(0.5)
    assert put == [True, True], "a portion is sent, and one waits"
    assert source.next() is not None
    assert source.next() is not None
    drawing.join(1)
    assert len(put) == 3
    source.give_up()
    drawing.join(5)
    assert put[3:] == [False] * 6
