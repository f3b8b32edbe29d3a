"""The ledger: every question asked once, every answer kept, and a key that is all that shapes the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nift_assets.ledger import Ledger, Message, Request, read
from nift_assets.providers import chat_completion
from nift_assets.providers.echo import Echo


@dataclass
class Counting:
    """A provider that answers with the question, keeps what reaches it and breaks down before answer `breaks_at`."""

    breaks_at: int | None = None
    asked: list[Request] = field(default_factory=list)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        for request in requests:
            if len(self.asked) == self.breaks_at:
                raise ConnectionError("the provider went away")
            self.asked.append(request)
            yield request, chat_completion(model="m", text=request.messages[-1].content, finish_reason="stop")


def request(text: str, **changes: Any) -> Request:
    return dataclasses.replace(
        Request(provider="p", model="m", messages=(Message(role="user", content=text),), parameters={"temperature": 0}),
        **changes,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")


def test_a_finished_question_is_never_asked_again(ledger: Ledger) -> None:
    provider = Counting()
    questions = [request(str(i)) for i in range(1_200)]
    assert [a.text for a in ledger.ask(questions, provider)] == [str(i) for i in range(1_200)]
    again = Counting()
    answers = ledger.ask([*reversed(questions), request("one more")], again)
    assert [r.messages[-1].content for r in again.asked] == ["one more"]
    assert answers[0].text == "1199"


def test_a_question_asked_twice_at_once_is_sent_once(ledger: Ledger) -> None:
    provider = Counting()
    answers = ledger.ask([request("same"), request("same")], provider)
    assert len(provider.asked) == 1
    assert answers[0] == answers[1]


def test_what_had_arrived_before_a_breakdown_is_kept(ledger: Ledger) -> None:
    questions = [request(str(i)) for i in range(10)]
    with pytest.raises(ConnectionError):
        ledger.ask(questions, Counting(breaks_at=6))
    rest = Counting()
    assert len(ledger.ask(questions, rest)) == 10
    assert [r.messages[-1].content for r in rest.asked] == ["6", "7", "8", "9"]


def test_the_intent_is_written_before_the_question_leaves(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"

    class Looking(Counting):
        def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
            with sa.create_engine(url).connect() as connection:
                assert connection.scalar(sa.text("select count(*) from requests")) == 3
                assert connection.scalar(sa.text("select count(*) from answers")) == 0
            yield from super().answer(requests)

    Ledger(url).ask([request(str(i)) for i in range(3)], Looking())


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "q"},
        {"model": "n"},
        {"messages": (Message(role="system", content="s"), Message(role="user", content="text"))},
        {"messages": (Message(role="user", content="text "),)},
        {"parameters": {"temperature": 1}},
        {"parameters": {"temperature": 0, "max_tokens": 5}},
        {"draw": 1},
    ],
)
def test_every_field_that_shapes_the_answer_is_in_the_key(change: dict[str, Any]) -> None:
    assert request("text", **change).key() != request("text").key()


def test_the_order_of_parameters_is_not_in_the_key() -> None:
    one = request("text", parameters={"a": 1, "b": 2})
    assert one.key() == request("text", parameters={"b": 2, "a": 1}).key()


@pytest.mark.parametrize(
    ("text", "reason", "status"),
    [
        ("fine", "stop", "ok"),
        (" \n", "stop", "empty"),
        ("cut", "length", "truncated"),
        (" \n", "length", "empty"),
        ("", "content_filter", "refused"),
        ("half a stream", None, "error"),
        ("something new", "tool_calls", "error"),
    ],
)
def test_every_way_to_end_has_its_status(text: str, reason: str, status: str) -> None:
    assert read("k", chat_completion(model="m", text=text, finish_reason=reason)).status == status


def test_echo_takes_every_branch_and_repeats_itself(ledger: Ledger, tmp_path: Path) -> None:
    questions = [request(f"some words number {i}", model="continue") for i in range(200)]
    answers = ledger.ask(questions, Echo())
    assert {a.status for a in answers} == {"ok", "empty", "truncated", "refused"}
    starts = [a.text.strip()[:1] for a in answers if a.status == "ok"]
    assert any(s.isupper() for s in starts)
    assert any(s.islower() for s in starts)
    elsewhere = Ledger(f"sqlite:///{tmp_path}/elsewhere.sqlite")
    assert elsewhere.ask(questions, Echo()) == answers
