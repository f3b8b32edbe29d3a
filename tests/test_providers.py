"""The providers that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from nift_assets.ledger import Ledger, Message, Request, read
from nift_assets.providers.local import TOO_LONG, Local
from nift_assets.providers.original import Original
from tests.conftest import Demo


def request(text: str, **parameters: object) -> Request:
    return Request(provider="p", model="m", messages=(Message(role="user", content=text),), parameters=parameters)


def test_the_original_teacher_answers_with_the_documents_own_second_half(tmp_path: Path) -> None:
    provider = Original({"a": " and ends.", "b": "\n\nElsewhere."})
    answers = Ledger(f"sqlite:///{tmp_path}/l.sqlite").ask(
        [request("x", document="b"), request("x", document="a")], provider
    )
    assert [(a.status, a.text) for a in answers] == [("ok", "\n\nElsewhere."), ("ok", " and ends.")]


@pytest.fixture(scope="module")
def local(demo: Demo) -> Local:
    folder = next((demo.warehouse / "demo" / "backbones" / "pico").iterdir())
    return Local(str(folder), threads=1)


def test_a_local_model_answers_every_request_the_same_way_each_time(local: Local) -> None:
    requests = [request(f"The town council met on day {i} and", max_tokens=6) for i in range(70)]
    first = {r.key(): body for r, body in local.answer(requests)}
    again = {r.key(): body for r, body in local.answer(list(reversed(requests)))}
    assert first.keys() == {r.key() for r in requests}
    assert first == again


def test_a_text_that_does_not_fit_the_local_model_is_an_error_not_another_question(local: Local) -> None:
    fits, too_long = request("A short text", max_tokens=4), request("word " * 3000, max_tokens=4)
    bodies = {r.key(): body for r, body in local.answer([too_long, fits])}
    assert read("k", bodies[too_long.key()]).status == "error"
    assert read("k", bodies[too_long.key()]).finish_reason == TOO_LONG
    assert read("k", bodies[fits.key()]).status in ("ok", "truncated", "empty")
