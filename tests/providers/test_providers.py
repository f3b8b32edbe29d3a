"""The providers: those that cost nothing answer, those that cost something say what they send and understand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets import providers
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import ask
from nift_assets.protocol import Answer, Message, Request
from nift_assets.protocol.answer import StoredResponse
from nift_assets.providers import answer, anthropic, openai
from nift_assets.providers.echo import Echo
from nift_assets.providers.local import Local
from nift_assets.providers.original import Original
from nift_assets.rows import LanguageModel
from tests.conftest import Demo

MODEL = LanguageModel(name="teacher", provider="openai", model="m")
CLAUDE = LanguageModel(name="claude", provider="anthropic", model="c", max_tokens=64, system_prompt="Go on.")


TEXT_PART = {"type": "text", "text": "How?"}
DETAIL = {"type": "reasoning.text", "text": "How?", "signature": None}
ENCRYPTED = {"type": "reasoning.encrypted", "data": "x"}


def request(text: str, *, model: str = "m", provider: str = "original", **parameters: object) -> Request:
    return Request(
        provider=provider, model=model, messages=(Message(role="user", content=text),), parameters=parameters
    )


def read(body: dict[str, Any], provider: str = "openai") -> Answer:
    status = 400 if "error" in body else 200
    return answer(StoredResponse(key="k", provider=provider, http_status=status, body=json.dumps(body).encode()))


def book(tmp_path: Path) -> Book:
    return Book(f"sqlite:///{tmp_path}/ledger.sqlite")


def test_the_original_teacher_answers_with_the_documents_own_second_half(tmp_path: Path) -> None:
    provider = Original({"a": " and ends.", "b": "\n\nElsewhere."}.__getitem__)
    asked = ask(
        book(tmp_path),
        Asker(study="s", who="original", writer="w"),
        [request("x", document="b"), request("x", document="a")],
        provider,
    )
    assert [(a.status, a.text) for a in asked.answers] == [("ok", "\n\nElsewhere."), ("ok", " and ends.")]


def test_echo_takes_every_branch_and_repeats_itself(tmp_path: Path) -> None:
    questions = [request(f"some words number {i}", model="continue", provider="echo") for i in range(200)]
    asker = Asker(study="s", who="echo", writer="w")
    answers = ask(book(tmp_path), asker, questions, Echo()).answers
    assert {a.status for a in answers} == {"ok", "empty", "truncated", "refused"}
    starts = [a.text.strip()[:1] for a in answers if a.status == "ok"]
    assert any(s.isupper() for s in starts)
    assert any(s.islower() for s in starts)
    elsewhere = Book(f"sqlite:///{tmp_path}/elsewhere.sqlite")
    assert ask(elsewhere, asker, questions, Echo()).answers == answers


@pytest.fixture(scope="module")
def local(demo: Demo) -> Local:
    folder = next((demo.warehouse / "demo" / "backbones" / "pico").iterdir())
    return Local(str(folder), threads=1)


def test_a_local_model_answers_every_request_the_same_way_each_time(local: Local) -> None:
    requests = [request(f"The town council met on day {i} and", max_tokens=6) for i in range(70)]
    first = {r.key: body for r, body in local.answer(requests)}
    again = {r.key: body for r, body in local.answer(list(reversed(requests)))}
    assert first.keys() == {r.key for r in requests}
    assert first == again


def test_a_text_that_does_not_fit_the_local_model_is_an_error_not_another_question(local: Local) -> None:
    fits, too_long = request("A short text", max_tokens=4), request("word " * 3000, max_tokens=4)
    bodies = {r.key: body for r, body in local.answer([too_long, fits])}
    refused = read(bodies[too_long.key], "local")
    assert refused.status == "rejected"
    assert refused.detail is not None
    assert "do not fit the model's context" in refused.detail
    answered = read(bodies[fits.key], "local")
    assert answered.status in ("ok", "truncated", "empty")
    assert answered.input_tokens is not None
    assert 0 < answered.input_tokens < 20


@pytest.mark.fault("T26")
@pytest.mark.parametrize(
    ("text", "reason", "status"),
    [
        ("fine", "stop", "ok"),
        (" \n", "stop", "empty"),
        ("cut", "length", "truncated"),
        (" \n", "length", "empty"),
        ("", "content_filter", "refused"),
        ("half", "content_filter", "refused"),
        ("something new", "tool_calls", "other"),
        ("fine", "end_turn", "ok"),
        ("fine", "eos_token", "ok"),
        ("fine", "stop_sequence", "ok"),
        ("cut", "max_tokens", "truncated"),
        ("cut", "MAX_TOKENS", "truncated"),
        ("half", "insufficient_system_resource", "other"),
        ("something new", "a_new_reason", "other"),
    ],
)
def test_every_way_to_end_has_its_status(text: str, reason: str, status: str) -> None:
    assert read(providers.chat_completion(model="m", text=text, finish_reason=reason)).status == status


@pytest.mark.fault("T26")
@pytest.mark.parametrize(
    ("text", "reason", "status"),
    [
        ("fine", "end_turn", "ok"),
        ("fine", "stop_sequence", "ok"),
        ("cut", "max_tokens", "truncated"),
        ("cut", "model_context_window_exceeded", "truncated"),
        ("", "end_turn", "empty"),
        ("", "refusal", "refused"),
        ("so far", "pause_turn", "other"),
        ("something new", "a_new_reason", "other"),
    ],
)
def test_every_way_a_message_ends_has_its_status(text: str, reason: str, status: str) -> None:
    body = {"model": "c", "content": [{"type": "text", "text": text}], "stop_reason": reason, "usage": {}}
    assert read(body, "anthropic").status == status


def test_the_text_of_a_message_is_its_text_blocks_in_order() -> None:
    blocks = [{"type": "text", "text": "one"}, {"type": "thinking", "thinking": "…"}, {"type": "text", "text": " two"}]
    reading = anthropic.read({"content": blocks, "stop_reason": "end_turn"})
    assert (reading.text, reading.status, reading.input_tokens) == ("one two", "ok", None)


@pytest.mark.parametrize(
    ("message", "thoughts", "text"),
    [
        ({"content": " as it is"}, None, " as it is"),
        ({"content": "<think>\nHow does it end?\n</think>\n\n and on."}, "How does it end?", " and on."),
        ({"content": "How does it end?\n</think>\n and on."}, "How does it end?", " and on."),
        ({"content": "<think>cut while it thou"}, "cut while it thou", ""),
        ({"content": "<think></think> and on."}, None, " and on."),
        ({"content": " and on.", "reasoning_content": "How?"}, "How?", " and on."),
        ({"content": " and on.", "reasoning": "How?"}, "How?", " and on."),
        ({"content": "[THINK]How?[/THINK] and on."}, "How?", " and on."),
        ({"content": " and on.", "thinking": "How?"}, "How?", " and on."),
        (
            {"content": [{"type": "thinking", "thinking": [TEXT_PART]}, {"type": "text", "text": " and on."}]},
            "How?",
            " and on.",
        ),
        ({"content": [{"type": "reasoning", "text": "How?"}, {"text": " and"}, " on."]}, "How?", " and on."),
        ({"content": [{"type": "output_text", "text": " and on."}]}, None, " and on."),
        ({"content": " and on.", "reasoning": "How?", "reasoning_details": [DETAIL]}, "How?", " and on."),
        ({"content": " and on.", "reasoning": None, "reasoning_details": [DETAIL, ENCRYPTED]}, "How?", " and on."),
        (
            {"content": " and on.", "reasoning_details": [{"type": "reasoning.summary", "summary": "How?"}]},
            "How?",
            " and on.",
        ),
        ({"content": " and on.", "reasoning": 5, "reasoning_details": "How?"}, "How?", " and on."),
        ({"content": None, "reasoning": "How?"}, "How?", ""),
        ({"content": " the tag <think>…</think> of models"}, None, " the tag <think>…</think> of models"),
    ],
)
def test_thoughts_are_told_apart_from_the_answer(message: dict[str, Any], thoughts: str | None, text: str) -> None:
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    reading = openai.read(body)
    assert (reading.thoughts, reading.text) == (thoughts, text)
    assert reading.status == ("ok" if text else "empty")
    if isinstance(message["content"], str):
        assert providers.read("original", body).text == message["content"]  # an author's text is nobody's thoughts


def test_the_thoughts_of_a_message_are_its_thinking_blocks() -> None:
    blocks = [{"type": "thinking", "thinking": "How?"}, {"type": "text", "text": " and on."}]
    reading = anthropic.read({"content": blocks, "stop_reason": "end_turn"})
    assert (reading.thoughts, reading.text) == ("How?", " and on.")


@pytest.mark.parametrize(
    ("content", "thoughts", "text"),
    [
        (" and on.", None, " and on."),
        ("<think>How?</think> and on.", "How?", " and on."),
        ([" and on."], None, " and on."),
        ([{"type": "redacted_thinking", "data": "x"}, {"text": " and on."}], None, " and on."),
        (
            [{"type": "thinking", "thinking": "How?", "signature": "s"}, {"type": "text", "text": " on."}],
            "How?",
            " on.",
        ),
    ],
)
def test_a_message_of_a_proxy_that_is_one_text_is_an_answer_too(content: Any, thoughts: str | None, text: str) -> None:
    reading = anthropic.read({"content": content, "stop_reason": "end_turn"})
    assert (reading.thoughts, reading.text, reading.status) == (thoughts, text, "ok")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "thinking", "content", "summary"]), inside, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(content=JSON, field=st.sampled_from(openai.THOUGHT_FIELDS), told=JSON)
def test_whatever_a_server_puts_into_its_fields_the_text_beside_it_is_the_answer(
    content: Any, field: str, told: Any
) -> None:
    message = {"content": [{"type": "text", "text": "So."}, *(content if isinstance(content, list) else [content])]}
    reading = openai.read({"choices": [{"message": {**message, field: told}, "finish_reason": "stop"}]})
    assert reading.text.startswith("So.")
    assert anthropic.read({**message, "stop_reason": "end_turn"}).text.startswith("So.")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{"message": {"content": "x"}}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": None}]},
    ],
)
def test_half_a_completion_is_no_answer(body: dict[str, Any]) -> None:
    with pytest.raises((KeyError, IndexError, TypeError, ValueError)):
        openai.read(body)


@pytest.mark.parametrize("body", [{}, {"content": [], "stop_reason": None}])
def test_half_a_message_is_no_answer(body: dict[str, Any]) -> None:
    with pytest.raises((KeyError, IndexError, TypeError, ValueError)):
        anthropic.read(body)


def test_only_what_the_row_says_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    asked = providers.request(dataclasses.replace(MODEL, temperature=None), "first half")
    assert openai.connect(MODEL).payload(asked) == {
        "model": "m",
        "messages": [{"role": "user", "content": "first half"}],
    }
    refuses = providers.request(dataclasses.replace(MODEL, temperature=0.0, supports_temperature=False), "first half")
    assert refuses.key == asked.key


def test_a_messages_system_prompt_stands_beside_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789abcdef")
    connected = anthropic.connect(CLAUDE)
    assert connected.payload(providers.request(CLAUDE, "first half")) == {
        "model": "c",
        "system": "Go on.",
        "messages": [{"role": "user", "content": "first half"}],
        "temperature": 0.0,
        "max_tokens": 64,
    }
    assert connected.headers()["anthropic-version"] == "2023-06-01"
    other = dataclasses.replace(CLAUDE, api_version="2024-01-01")
    assert anthropic.connect(other).headers()["anthropic-version"] == "2024-01-01"
    assert providers.request(other, "first half").api_version == "2024-01-01"


def test_the_providers_own_key_goes_to_the_provider_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own-0123456789abcdef")
    monkeypatch.setenv("THEIR_API_KEY", "sk-their-0123456789abcdef")
    assert openai.connect(MODEL).headers() == {"Authorization": "Bearer sk-own-0123456789abcdef"}
    elsewhere = dataclasses.replace(MODEL, base_url="https://example.org/v1")
    assert openai.connect(elsewhere).headers() == {}
    named = dataclasses.replace(elsewhere, key_variable="THEIR_API_KEY")
    assert openai.connect(named).headers() == {"Authorization": "Bearer sk-their-0123456789abcdef"}
    assert "sk-" not in repr(openai.connect(named))


def test_a_key_never_travels_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_API_KEY", "sk-their-0123456789abcdef")
    clear = dataclasses.replace(MODEL, base_url="http://example.org/v1", key_variable="THEIR_API_KEY")
    for connect in (openai.connect, anthropic.connect):
        with pytest.raises(ValueError, match=r"a key would travel in clear to example\.org"):
            connect(clear)
    here = dataclasses.replace(clear, base_url="http://127.0.0.1:8000/v1")
    assert openai.connect(here).headers()


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"OPENAI_API_KEY.*'teacher'|'teacher'.*OPENAI_API_KEY"):
        openai.connect(MODEL)


@pytest.mark.parametrize(
    ("status", "error", "kind", "cause"),
    [
        (401, {"message": "Incorrect API key provided"}, "stop", "authentication"),
        (403, {"message": "no", "code": "denied"}, "stop", "permission"),
        (404, {"message": "no such model", "code": "model_not_found"}, "stop", "not_found"),
        (429, {"message": "quota", "code": "insufficient_quota"}, "stop", "quota"),
        (429, {"message": "slower", "code": "rate_limit_exceeded"}, "wait", "rate_limit"),
        (400, {"message": "no", "param": "temperature"}, "row", "parameter"),
        (400, {"message": "no", "code": "invalid_value", "param": "messages"}, "reject", "invalid_value"),
        (408, {"message": "late"}, "unclear", "http_408"),
        (500, {"message": "oh"}, "again", "http_500"),
        (503, None, "again", "http_503"),
        (422, None, "reject", "http_422"),
    ],
)
def test_what_an_error_of_openai_means(status: int, error: dict[str, Any] | None, kind: str, cause: str) -> None:
    found = openai.read_error(status, json.dumps({"error": error}).encode() if error else b"<html>", "m")
    assert (found.kind, found.cause) == (kind, cause)
    assert found.message
    assert found.kind != "stop" or found.remedy


@pytest.mark.parametrize(
    ("status", "kind", "message", "meaning", "cause"),
    [
        (400, "invalid_request_error", "Your credit balance is too low to access", "stop", "quota"),
        (402, "billing_error", "billing", "stop", "quota"),
        (401, "authentication_error", "invalid x-api-key", "stop", "authentication"),
        (403, "permission_error", "no", "stop", "permission"),
        (404, "not_found_error", "model: c", "stop", "not_found"),
        (400, "invalid_request_error", "temperature: not supported", "row", "parameter"),
        (400, "invalid_request_error", "messages: empty", "reject", "invalid_request_error"),
        (413, "request_too_large", "too large", "reject", "request_too_large"),
        (429, "rate_limit_error", "slower", "wait", "rate_limit"),
        (500, "api_error", "oh", "again", "http_500"),
        (529, "overloaded_error", "Overloaded", "again", "overloaded"),
    ],
)
def test_what_an_error_of_anthropic_means(status: int, kind: str, message: str, meaning: str, cause: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    found = anthropic.read_error(status, body, "c")
    assert (found.kind, found.cause, found.message) == (meaning, cause, message)


def test_the_quota_is_read_from_the_headers() -> None:
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "59.9s",
    }
    found = openai.quota(headers)
    assert found is not None
    assert (found.requests_per_minute, found.requests_left) == (600, 599)
    assert (found.tokens_per_minute, found.tokens_left) == (60000, 100)
    assert openai.quota({"date": "now"}) is None
    assert anthropic.quota({}) is None


def test_a_limit_per_day_is_told_by_how_long_its_bucket_takes_to_fill() -> None:
    """200 requests a day come back one in 432 seconds: `x-ratelimit-reset-requests` of one is 7m12s."""
    headers = {
        "x-ratelimit-limit-requests": "200",
        "x-ratelimit-remaining-requests": "199",
        "x-ratelimit-reset-requests": "7m12s",
    }
    found = openai.quota(headers)
    assert found is not None
    assert found.requests_per_minute == pytest.approx(60 / 432)


def test_of_anthropics_token_limits_the_scarcest_counts() -> None:
    prefix = "anthropic-ratelimit"
    headers = {
        f"{prefix}-requests-limit": "50",
        f"{prefix}-requests-remaining": "0",
        f"{prefix}-input-tokens-limit": "40000",
        f"{prefix}-input-tokens-remaining": "39000",
        f"{prefix}-output-tokens-limit": "8000",
        f"{prefix}-output-tokens-remaining": "10",
    }
    found = anthropic.quota(headers)
    assert found is not None
    assert (found.requests_per_minute, found.requests_left) == (50, 0)
    assert (found.tokens_per_minute, found.tokens_left) == (8000, 10)
