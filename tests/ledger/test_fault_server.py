"""The fault server itself: its formats as both official clients read them, its faults as a bare socket sees them."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PROJECT
from tests.ledger.fault_server import (
    ANTHROPIC_ERRORS,
    KINDS,
    OPENAI_ERRORS,
    Bill,
    FaultServer,
    expected_text,
    expected_words,
    go_duration,
    read_log,
    struck,
)

if TYPE_CHECKING:
    import anthropic
    import openai

KEY = "sk-canary-0123456789abcdef"
KEY_HASH = hashlib.sha256(KEY.encode()).hexdigest()
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
SHAPES = pytest.mark.parametrize("shape", PATHS)
NUMBERS = itertools.count()
USAGE = {"openai": ("prompt_tokens", "completion_tokens"), "anthropic": ("input_tokens", "output_tokens")}


@pytest.fixture(scope="module")
def shared() -> Iterator[FaultServer]:
    """One server for the file: starting one takes a tenth of a second."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def server(shared: FaultServer) -> FaultServer:
    """The shared server, behaving well and with nothing left of the test before."""
    shared.set(
        faults=[],
        latency=0.0,
        cap=None,
        keys=None,
        batch_seconds=0.0,
        date_skew=0.0,
        max_rows={},
        temperature_refused_by_models=[],
    )
    return shared


def new_prompt(text: str = "the rain had") -> str:
    """A prompt that no other test of this run sends."""
    return f"{text} {next(NUMBERS)}"


def body_of(shape: str, prompt: str, **more: Any) -> dict[str, Any]:
    limit = {"max_tokens": 200} if shape == "anthropic" else {}
    return {"model": "m-1", "messages": [{"role": "user", "content": prompt}], **limit, **more}


def headers_of(shape: str) -> dict[str, str]:
    if shape == "anthropic":
        return {"x-api-key": KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    return {"authorization": f"Bearer {KEY}", "content-type": "application/json"}


def send(
    server: FaultServer,
    shape: str,
    prompt: str | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 5.0,
    **more: Any,
) -> tuple[http.client.HTTPResponse, bytes]:
    """The response and its body, from a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        body = json.dumps(body_of(shape, prompt or new_prompt(), **more))
        connection.request("POST", PATHS[shape], body, headers_of(shape) if headers is None else headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def text_of(shape: str, body: bytes) -> Any:
    answer = json.loads(body)
    return answer["choices"][0]["message"]["content"] if shape == "openai" else answer["content"][0]["text"]


def reason_of(shape: str, body: bytes) -> Any:
    answer = json.loads(body)
    return answer["choices"][0]["finish_reason"] if shape == "openai" else answer["stop_reason"]


def last_bill(server: FaultServer) -> Bill:
    return server.arrivals()[-1]


def openai_client(server: FaultServer, timeout: float = 5.0) -> openai.OpenAI:
    return _openai_client(server.url, timeout)


def anthropic_client(server: FaultServer, timeout: float = 5.0) -> anthropic.Anthropic:
    return _anthropic_client(server.url, timeout)


# Making a client takes longer than most tests here: it reads all certificates of the machine.
@functools.cache
def _openai_client(url: str, timeout: float) -> openai.OpenAI:
    import openai

    return openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, timeout=timeout)


@functools.cache
def _anthropic_client(url: str, timeout: float) -> anthropic.Anthropic:
    import anthropic

    return anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0, timeout=timeout)


# --- The answers and the log.


def test_openais_client_reads_the_answer(server: FaultServer) -> None:
    prompt = new_prompt()
    messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]
    raw = openai_client(server).chat.completions.with_raw_response.create(model="gpt-9", messages=messages)
    answer = raw.parse()
    assert answer.choices[0].message.content == expected_text(prompt, "gpt-9", "be brief")
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.system_fingerprint) == ("gpt-9", "fp_2f57f81c11")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(expected_words(prompt, "gpt-9", "be brief"))
    assert raw.headers["x-request-id"].startswith("req_")


def test_anthropics_client_reads_the_answer(server: FaultServer) -> None:
    prompt = new_prompt()
    answer = anthropic_client(server).messages.create(
        model="claude-9", max_tokens=500, system="be brief", messages=[{"role": "user", "content": prompt}]
    )
    assert [block.type for block in answer.content] == ["text"]
    assert getattr(answer.content[0], "text", None) == expected_text(prompt, "claude-9", "be brief")
    assert (answer.stop_reason, answer.model) == ("end_turn", "claude-9")
    assert answer.usage.output_tokens == len(expected_words(prompt, "claude-9", "be brief"))
    assert answer._request_id is not None
    assert last_bill(server).headers["anthropic-version"] == "2026-10-21"


def test_the_text_depends_on_prompt_model_and_system_and_has_characters_of_many_scripts() -> None:
    texts = {expected_text(p, m, s) for p in ("a", "b") for m in ("m", "n") for s in (None, "s")}
    assert len(texts) == 8
    many = " ".join(expected_text(str(n), "m") for n in range(100))
    assert all(mark in many for mark in ("\u0301", "日本語", "🙂", "\u200d", "مرحبا", "\n\n", '"'))


@SHAPES
def test_an_answer_longer_than_max_tokens_is_cut_and_says_so(server: FaultServer, shape: str) -> None:
    prompt = new_prompt()
    _, body = send(server, shape, prompt, max_tokens=5)
    assert (
        text_of(shape, body)
        == expected_text(prompt, "m-1", max_tokens=5)
        == " ".join(expected_words(prompt, "m-1")[:5])
    )
    assert reason_of(shape, body) == {"openai": "length", "anthropic": "max_tokens"}[shape]
    assert json.loads(body)["usage"][USAGE[shape][1]] == 5


@SHAPES
def test_the_bill_says_exactly_what_arrived_and_what_was_answered(server: FaultServer, shape: str) -> None:
    prompt = new_prompt("long " * 60)
    headers = {**headers_of(shape), "x-client-request-id": "mine-1"}
    began = time.monotonic()
    _, body = send(server, shape, prompt, headers)
    bill = last_bill(server)
    sent = json.dumps(body_of(shape, prompt)).encode()
    assert bill.body_sha256 == hashlib.sha256(sent).hexdigest()
    assert bill.response_sha256 == hashlib.sha256(body).hexdigest()
    assert bill.prompt == bill.prompt_sha256 == hashlib.sha256(prompt.encode()).hexdigest()
    assert (bill.status, bill.fault, bill.billed, bill.delivered) == (200, None, True, True)
    assert (bill.path, bill.shape, bill.model, bill.scope) == (PATHS[shape], shape, "m-1", "generation")
    assert bill.headers["x-client-request-id"] == "mine-1"
    assert KEY_HASH in bill.headers.values()
    assert began <= bill.at <= time.monotonic()
    assert KEY.encode() not in server.log.read_bytes()


def test_a_short_prompt_is_in_the_log_in_clear_and_a_lone_surrogate_breaks_nothing(server: FaultServer) -> None:
    prompt = new_prompt("odd \ud800 half")
    server.set(faults=[{"fault": "echo_prompt"}])
    _, body = send(server, "openai", prompt)
    assert text_of("openai", body) == prompt
    assert last_bill(server).prompt == prompt


def test_a_connection_is_kept_and_its_requests_may_come_in_pieces_or_together(server: FaultServer) -> None:
    prompts = [new_prompt() for _ in range(3)]
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {}\r\n\r\n"
    bodies = [json.dumps(body_of("openai", prompt)) for prompt in prompts]
    sent = "".join(head.format(len(body)) + body for body in bodies).encode()
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        for start in range(0, 60, 7):
            connection.sendall(sent[start : min(start + 7, 60)])
            time.sleep(0.001)
        connection.sendall(sent[60:])
        received = b""
        while received.count(b'"service_tier"') < 3:
            received += connection.recv(65536)
    answers = [json.loads(part) for part in re.findall(rb"\r\n\r\n(\{.*?\"fp_2f57f81c11\"\})", received, re.DOTALL)]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts == [expected_text(prompt, "m-1") for prompt in prompts]


def test_the_truth_counts_what_was_sent_and_how_many_at_once(server: FaultServer) -> None:
    before = server.truth()
    server.set(latency=0.2, faults=[{"fault": "rate_limit", "model": "refused"}])
    prompt = new_prompt()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: send(server, "openai", prompt), range(8)))
    send(server, "openai", prompt, model="refused")
    truth = server.truth()
    sent = hashlib.sha256(json.dumps(body_of("openai", prompt)).encode()).hexdigest()
    assert truth["sends"][sent] == 8
    assert truth["max_in_flight"] == 8
    assert truth["in_flight"] == 0
    assert truth["arrivals"] - before["arrivals"] == 9
    assert truth["billed"] - before["billed"] == 8
    assert truth["by_fault"]["rate_limit"] - before["by_fault"].get("rate_limit", 0) == 1
    assert truth["by_api_key_sha256"][KEY_HASH] >= 9
    assert sum(truth["per_second"]) == truth["arrivals"] == sum(truth["by_status"].values())


# --- The schedule.


def faulted(server: FaultServer, prompts: list[str], model: str = "m-1") -> list[bool]:
    return [send(server, "openai", prompt, model=model)[0].status == 500 for prompt in prompts]


@pytest.mark.parametrize("share", [0.3, [0.3, 0.6]])
def test_a_share_strikes_the_same_prompts_every_time(server: FaultServer, share: Any) -> None:
    server.set(faults=[{"fault": "server_error", "share": share, "seed": 3}])
    prompts = [new_prompt() for _ in range(40)]
    hit = faulted(server, prompts)
    assert hit == faulted(server, prompts) == [struck(prompt, share, 3) for prompt in prompts]
    assert 4 <= sum(hit) <= 24


def test_a_share_per_arrival_strikes_the_same_prompt_only_sometimes(server: FaultServer) -> None:
    server.set(faults=[{"fault": "server_error", "share": 0.5, "seed": 1, "per": "arrival"}])
    assert 3 <= sum(faulted(server, [new_prompt()] * 30)) <= 27


def test_the_first_attempts_of_a_prompt_are_counted_by_prompt(server: FaultServer) -> None:
    server.set(faults=[{"fault": "server_error", "first": 2}])
    one, two = new_prompt(), new_prompt()
    assert faulted(server, [one, two, one, one, two, two]) == [True, True, True, False, True, False]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"at": [1, 3]}, [0, 1, 0, 1, 0]),
        ({"from": 1, "until": 4}, [0, 1, 1, 1, 0]),
        ({"seconds": [0, 9]}, [1] * 5),
        ({"seconds": [9, 99]}, [0] * 5),
        ({"model": "m-1"}, [1] * 5),
        ({"model": "m-2"}, [0] * 5),
        ({"nth": [0, 4]}, [1, 0, 0, 0, 1]),
    ],
)
def test_conditions_go_by_arrival_time_and_model(when: dict[str, Any], expected: list[int]) -> None:
    with FaultServer([{"fault": "server_error", **when}]) as server:
        assert faulted(server, [new_prompt() for _ in range(5)]) == [bool(hit) for hit in expected]


def test_the_first_rule_that_strikes_wins_and_an_unknown_kind_is_refused(server: FaultServer) -> None:
    server.set(faults=[{"fault": "auth", "model": "m-2"}, {"fault": "server_error"}])
    assert send(server, "openai", model="m-2")[0].status == 401
    assert send(server, "openai", model="m-1")[0].status == 500
    with pytest.raises(ValueError, match="no fault is called 'earthquake'"):
        server.set(faults=[{"fault": "earthquake"}])


# --- Errors.

GENERATION_ERRORS = [kind for kind in OPENAI_ERRORS if not kind.startswith(("create", "poll"))]


@pytest.mark.parametrize("kind", GENERATION_ERRORS)
@SHAPES
def test_an_error_has_the_providers_shape_and_costs_nothing(server: FaultServer, shape: str, kind: str) -> None:
    server.set(faults=[{"fault": kind, "retry_after": "9999"}])
    response, body = send(server, shape)
    error = json.loads(body)["error"]
    if shape == "openai":
        status, type, code, _ = OPENAI_ERRORS[kind]
        assert (response.status, error["type"], error["code"]) == (status, type, code)
    else:
        assert (response.status, error["type"]) == ANTHROPIC_ERRORS[kind][:2]
        assert json.loads(body)["type"] == "error"
        assert json.loads(body)["request_id"] == response.headers["request-id"]
    assert response.headers["retry-after"] == "9999"
    bill = last_bill(server)
    assert (bill.billed, bill.fault, bill.status, bill.delivered) == (False, kind, response.status, True)


@pytest.mark.parametrize("value", ["-1", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9"])
def test_retry_after_is_sent_as_it_stands(server: FaultServer, value: str) -> None:
    server.set(faults=[{"fault": "rate_limit", "retry_after": value}])
    assert send(server, "openai")[0].headers["retry-after"] == value


@SHAPES
def test_an_error_may_echo_the_key_and_say_anything(server: FaultServer, shape: str) -> None:
    rule = {"fault": "status", "code": 418, "type": "teapot", "message": "short", "error_code": "t", "echo_key": True}
    server.set(faults=[rule])
    response, body = send(server, shape)
    error = json.loads(body)["error"]
    assert (response.status, error["type"], error["message"]) == (418, "teapot", f"short Your key is {KEY}.")


def test_the_clients_raise_their_own_errors(server: FaultServer) -> None:
    import anthropic
    import openai

    server.set(faults=[{"fault": "insufficient_quota"}])
    with pytest.raises(openai.RateLimitError) as quota:
        openai_client(server).chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert quota.value.code == "insufficient_quota"
    with pytest.raises(anthropic.BadRequestError, match="credit balance is too low"):
        anthropic_client(server).messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": new_prompt()}]
        )


WRONG: dict[str, tuple[str, dict[str, str], dict[str, Any], int, str]] = {
    "no key": ("openai", {}, {}, 401, "didn't provide an API key"),
    "no key of Anthropic's": (
        "anthropic",
        {"anthropic-version": "2023-06-01"},
        {},
        401,
        "x-api-key header is required",
    ),
    "no version": ("anthropic", {"x-api-key": KEY}, {}, 400, "anthropic-version: header is required"),
    "no max_tokens": ("anthropic", headers_of("anthropic"), {"max_tokens": None}, 400, "max_tokens: Field required"),
    "no model": ("openai", headers_of("openai"), {"model": None}, 400, "'model'"),
    "no messages": ("anthropic", headers_of("anthropic"), {"messages": []}, 400, "messages"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_request_that_lacks_what_is_required_is_refused(server: FaultServer, case: str) -> None:
    shape, headers, more, status, message = WRONG[case]
    response, body = send(server, shape, headers=headers, **more)
    assert response.status == status
    assert message in json.loads(body)["error"]["message"]
    assert not last_bill(server).billed


def test_only_the_keys_that_are_known_are_let_in(server: FaultServer) -> None:
    server.set(keys=["sk-other"])
    response, body = send(server, "openai")
    assert (response.status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
    assert KEY.encode() not in body
    server.set(keys=[KEY])
    assert send(server, "openai")[0].status == send(server, "anthropic")[0].status == 200


@pytest.mark.parametrize(
    ("version", "model", "status"),
    [("2023-06-01", "m-1", 200), ("2026-10-21", "m-1", 400), ("2023-06-01", "opus-5", 400)],
)
def test_anthropic_refuses_temperature_by_version_and_by_model(
    server: FaultServer, version: str, model: str, status: int
) -> None:
    server.set(temperature_refused_by_models=["opus-5"])
    headers = {**headers_of("anthropic"), "anthropic-version": version}
    response, body = send(server, "anthropic", headers=headers, model=model, temperature=0.7)
    assert response.status == status
    if status == 400:
        error = json.loads(body)["error"]
        assert error["type"] == "invalid_request_error"
        assert "temperature" in error["message"]
    assert send(server, "anthropic", headers=headers, model=model)[0].status == 200


def test_openai_refuses_a_temperature_by_model(server: FaultServer) -> None:
    server.set(temperature_refused_by_models=["o9"])
    response, body = send(server, "openai", model="o9", temperature=0.7)
    assert (response.status, json.loads(body)["error"]["param"]) == (400, "temperature")
    assert send(server, "openai", model="o9", temperature=1)[0].status == 200


# --- Deliveries.


@SHAPES
def test_a_hang_is_billed_and_never_answered(server: FaultServer, shape: str) -> None:
    server.set(faults=[{"fault": "hang"}])
    with pytest.raises(TimeoutError):
        send(server, shape, timeout=0.15)
    bill = last_bill(server)
    assert (bill.billed, bill.delivered, bill.status, bill.fault) == (True, False, None, "hang")


def test_an_answer_whose_client_has_gone_is_billed_and_not_delivered(server: FaultServer) -> None:
    server.set(faults=[{"fault": "slow", "delay": 0.3}])
    with pytest.raises(TimeoutError):
        send(server, "openai", timeout=0.1)
    time.sleep(0.3)
    assert (last_bill(server).billed, last_bill(server).delivered) == (True, False)
    assert server.truth()["in_flight"] == 0


def test_a_slow_answer_comes_after_its_delay(server: FaultServer) -> None:
    server.set(latency=0.05, faults=[{"fault": "slow", "delay": 0.15}])
    began = time.monotonic()
    assert send(server, "openai")[0].status == 200
    assert 0.19 <= time.monotonic() - began < 1
    assert last_bill(server).delivered


@pytest.mark.parametrize("billed", [True, False])
def test_a_reset_reaches_the_client_as_one(server: FaultServer, billed: bool) -> None:
    server.set(faults=[{"fault": "reset", "billed": billed}])
    with pytest.raises(ConnectionResetError) as reset:
        send(server, "openai")
    # http.client's error for an orderly end is a subclass of it.
    assert reset.type is ConnectionResetError
    assert (last_bill(server).billed, last_bill(server).delivered) == (billed, False)


def test_a_reset_before_the_request_is_read_leaves_no_bill(server: FaultServer) -> None:
    before, count = len(server.arrivals()), server.truth()["by_fault"].get("reset_before", 0)
    server.set(faults=[{"fault": "reset_before"}])
    with pytest.raises((ConnectionResetError, BrokenPipeError)) as reset:
        send(server, "openai")
    assert reset.type in (ConnectionResetError, BrokenPipeError)
    server.set(faults=[])
    assert len(server.arrivals()) == before
    assert server.truth()["by_fault"]["reset_before"] == count + 1


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("fraction", [0, 0.25, 0.5, 0.99])
def test_a_cut_answer_ends_early(server: FaultServer, fraction: float, chunked: bool) -> None:
    server.set(faults=[{"fault": "cut", "fraction": fraction, "chunked": chunked}])
    with pytest.raises(http.client.IncompleteRead) as cut:
        send(server, "openai")
    bill = last_bill(server)
    assert (bill.billed, bill.delivered, bill.status) == (True, False, 200)
    if not chunked:
        whole = len(cut.value.partial) + (cut.value.expected or 0)
        assert len(cut.value.partial) == int(whole * fraction)


def test_a_wrong_length_promises_more_or_less_than_comes(server: FaultServer) -> None:
    server.set(faults=[{"fault": "wrong_length", "off": 10}])
    with pytest.raises(http.client.IncompleteRead) as cut:
        send(server, "openai")
    assert json.loads(cut.value.partial)["object"] == "chat.completion"
    server.set(faults=[{"fault": "wrong_length", "off": -10}])
    with pytest.raises(json.JSONDecodeError):
        json.loads(send(server, "openai")[1])
    assert not last_bill(server).delivered


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_points_elsewhere_and_costs_nothing(server: FaultServer, code: int) -> None:
    server.set(faults=[{"fault": "redirect", "code": code, "to": "http://127.0.0.1:9/v1"}])
    response, _ = send(server, "openai")
    assert (response.status, response.headers["location"]) == (code, "http://127.0.0.1:9/v1")
    assert not last_bill(server).billed


# --- Bodies and endings.


@SHAPES
def test_bad_bodies_come_with_a_200_and_are_billed(server: FaultServer, shape: str) -> None:
    bodies = {}
    for kind in ("half_json", "empty_body", "html", "no_choices", "null_content", "extra_fields", "invalid_utf8"):
        server.set(faults=[{"fault": kind}])
        response, bodies[kind] = send(server, shape)
        assert response.status == 200
        assert (last_bill(server).billed, last_bill(server).fault) == (True, kind)
        assert last_bill(server).response_sha256 == (hashlib.sha256(bodies[kind]).hexdigest() if bodies[kind] else None)
    assert bodies["empty_body"] == b""
    assert bodies["html"].startswith(b"<html>")
    assert "from_the_future" in json.loads(bodies["extra_fields"])
    content = "choices" if shape == "openai" else "content"
    assert json.loads(bodies["no_choices"])[content] == []
    nothing = json.loads(bodies["null_content"])
    assert (nothing["choices"][0]["message"]["content"] if shape == "openai" else nothing["content"]) is None
    with pytest.raises(json.JSONDecodeError):
        json.loads(bodies["half_json"])
    with pytest.raises(UnicodeDecodeError):
        bodies["invalid_utf8"].decode()
    assert json.loads(bodies["invalid_utf8"].decode(errors="replace"))["usage"]


@SHAPES
def test_a_huge_answer_is_written_only_when_all_of_it_has_left(server: FaultServer, shape: str) -> None:
    server.set(faults=[{"fault": "huge"}])
    _, body = send(server, shape)
    assert len(text_of(shape, body)) == 50_000_000
    assert last_bill(server).delivered
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        sent = json.dumps(body_of(shape, new_prompt()))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers_of(shape).items())
        connection.sendall(f"POST {PATHS[shape]} HTTP/1.1\r\n{head}Content-Length: {len(sent)}\r\n\r\n{sent}".encode())
        connection.recv(1000)
    assert (last_bill(server).billed, last_bill(server).delivered) == (True, False)


REASONS = ["length", "max_tokens", "content_filter", "refusal", "model_context_window_exceeded", "pause_turn", "new"]


@pytest.mark.parametrize("reason", REASONS)
@SHAPES
def test_an_ending_has_the_reason_and_the_text_it_was_given(server: FaultServer, shape: str, reason: str) -> None:
    if (shape, reason) == ("anthropic", "length"):
        reason = "tool_calls"
    prompt = new_prompt()
    server.set(faults=[{"fault": "ending", "reason": reason}])
    _, body = send(server, shape, prompt)
    assert (reason_of(shape, body), text_of(shape, body)) == (reason, expected_text(prompt, "m-1"))
    server.set(faults=[{"fault": "ending", "reason": reason, "text": "[[7]]"}])
    assert text_of(shape, send(server, shape, prompt)[1]) == "[[7]]"


@SHAPES
def test_texts_can_be_empty_blank_or_an_echo(server: FaultServer, shape: str) -> None:
    prompt = new_prompt()
    for kind, text in {"empty_text": "", "blank_text": " \n\t ", "echo_prompt": prompt}.items():
        server.set(faults=[{"fault": kind}])
        assert text_of(shape, send(server, shape, prompt)[1]) == text


@SHAPES
def test_the_answer_can_name_another_model_or_fingerprint(server: FaultServer, shape: str) -> None:
    server.set(faults=[{"fault": "other_model", "model_name": "cheap"}])
    assert json.loads(send(server, shape)[1])["model"] == "cheap"
    server.set(faults=[{"fault": "fingerprint", "value": "fp_2"}])
    assert json.loads(send(server, shape)[1]).get("system_fingerprint") == ("fp_2" if shape == "openai" else None)


@SHAPES
def test_an_event_stream_comes_unasked_in_every_variant(server: FaultServer, shape: str) -> None:
    prompt, bodies = new_prompt(), {}
    for variant in ("whole", "cut", "no_done", "duplicated", "out_of_order"):
        server.set(faults=[{"fault": "sse", "variant": variant}])
        response, bodies[variant] = send(server, shape, prompt)
        assert response.headers["content-type"] == "text/event-stream"
    last = b"data: [DONE]\n\n" if shape == "openai" else b'data: {"type":"message_stop"}\n\n'
    assert bodies["whole"].endswith(last)
    assert not bodies["no_done"].endswith(last)
    assert not bodies["cut"].endswith(last)
    counts = {variant: body.count(b"data: ") for variant, body in bodies.items()}
    assert counts["duplicated"] == counts["whole"] + 1 == counts["no_done"] + 2 == counts["out_of_order"] + 1
    assert counts["cut"] < counts["whole"]


def test_the_clients_read_a_stream_that_they_asked_for(server: FaultServer) -> None:
    prompt = new_prompt()
    messages: Any = [{"role": "user", "content": prompt}]
    chunks = list(openai_client(server).chat.completions.create(model="m", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected_text(prompt, "m")
    with anthropic_client(server).messages.stream(model="m", max_tokens=99, messages=messages) as stream:
        assert stream.get_final_text() == expected_text(prompt, "m")


# --- The rate cap.


@SHAPES
def test_over_the_cap_requests_are_refused_with_the_providers_headers(server: FaultServer, shape: str) -> None:
    server.set(cap={"per_minute": 120, "burst": 3})
    responses = [send(server, shape)[0] for _ in range(5)]
    assert [response.status for response in responses] == [200, 200, 200, 429, 429]
    assert responses[3].headers["retry-after"] == "1"
    assert (last_bill(server).fault, last_bill(server).billed) == ("cap", False)
    told = responses[0].headers
    if shape == "openai":
        assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("120", "2")
        assert re.fullmatch(r"\d+ms|[\d.]+s", told["x-ratelimit-reset-requests"])
    else:
        assert told["anthropic-ratelimit-requests-remaining"] == "2"
        assert datetime.fromisoformat(told["anthropic-ratelimit-requests-reset"]).tzinfo is not None
    time.sleep(0.55)
    assert send(server, shape)[0].status == 200


def test_tokens_have_a_cap_of_their_own(server: FaultServer) -> None:
    server.set(cap={"per_minute": 6000, "tokens_per_minute": 500, "retry_after": None})
    statuses = [send(server, "openai", max_tokens=200)[0] for _ in range(3)]
    assert [response.status for response in statuses] == [200, 200, 429]
    assert "retry-after" not in statuses[2].headers
    assert int(statuses[2].headers["x-ratelimit-remaining-tokens"]) < 200


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.12, "120ms"), (1.5, "1.5s"), (360, "6m0s"), (3602, "1h0m2s"), (0, "0ms")]
)
def test_durations_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert go_duration(seconds) == written


def test_the_date_header_can_be_wrong(server: FaultServer) -> None:
    from email.utils import parsedate_to_datetime

    server.set(date_skew=86400)
    ahead = parsedate_to_datetime(send(server, "openai")[0].headers["date"]).timestamp() - time.time()
    assert 86_390 < ahead < 86_410


# --- Batches.


def openai_lines(prompts: list[str], prefix: str = "row", **more: Any) -> bytes:
    rows = [
        {
            "custom_id": f"{prefix}-{n}",
            "method": "POST",
            "url": PATHS["openai"],
            "body": body_of("openai", prompt, **more),
        }
        for n, prompt in enumerate(prompts)
    ]
    return b"\n".join(json.dumps(row).encode() for row in rows)


def submit(server: FaultServer, shape: str, prompts: list[str], prefix: str = "row", timeout: float = 5.0) -> Any:
    """The batch of these prompts, as the client of its provider gives it back."""
    if shape == "openai":
        client = openai_client(server, timeout=timeout)
        file = client.files.create(file=("in.jsonl", openai_lines(prompts, prefix)), purpose="batch")
        return client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"chunk": prefix},
        )
    requests: Any = [
        {"custom_id": f"{prefix}-{n}", "params": body_of("anthropic", prompt)} for n, prompt in enumerate(prompts)
    ]
    return anthropic_client(server, timeout=timeout).messages.batches.create(requests=requests)


def poll(server: FaultServer, shape: str, batch_id: str) -> Any:
    if shape == "openai":
        return openai_client(server).batches.retrieve(batch_id)
    return anthropic_client(server).messages.batches.retrieve(batch_id)


def download(server: FaultServer, shape: str, batch_id: str, errors: bool = False) -> bytes:
    """The exact bytes of a batch's results (OpenAI: or of its errors), without a client between."""
    path = f"/v1/messages/batches/{batch_id}/results"
    if shape == "openai":
        path = f"/v1/files/file-{'err' if errors else 'out'}-{batch_id}/content"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", path, headers=headers_of(shape))
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body
    finally:
        connection.close()


def rows_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.split(b"\n") if line]


def row_text(shape: str, row: dict[str, Any]) -> str:
    message = row["response"]["body"] if shape == "openai" else row["result"]["message"]
    return text_of(shape, json.dumps(message).encode())


@SHAPES
def test_a_batch_is_billed_by_row_and_answers_as_single_requests_do(server: FaultServer, shape: str) -> None:
    prompts = [new_prompt() for _ in range(4)]
    batch = submit(server, shape, prompts)
    rows = rows_of(download(server, shape, batch.id))
    assert [row["custom_id"] for row in rows] == [f"row-{n}" for n in range(4)]
    assert [row_text(shape, row) for row in rows] == [expected_text(prompt, "m-1") for prompt in prompts]
    bills = [bill for bill in server.bills() if bill.batch_id == batch.id]
    assert [(bill.custom_id, bill.prompt, bill.billed) for bill in bills] == [
        (f"row-{n}", prompt, True) for n, prompt in enumerate(prompts)
    ]


def test_openais_client_goes_through_the_whole_life_of_a_batch(server: FaultServer) -> None:
    server.set(batch_seconds=None)
    client = openai_client(server)
    batch = submit(server, "openai", [new_prompt() for _ in range(3)], "life")
    assert (batch.status, batch.metadata, batch.output_file_id) == ("validating", {"chunk": "life"}, None)
    statuses = []
    for _ in range(3):
        server.advance(1)
        batch = client.batches.retrieve(batch.id)
        statuses.append(batch.status)
    assert statuses == ["in_progress", "finalizing", "completed"]
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    assert batch.completed_at is not None
    assert batch.error_file_id is None
    assert len(rows_of(client.files.content(batch.output_file_id).content)) == 3
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"
    assert client.files.retrieve(batch.input_file_id).filename == "in.jsonl"
    assert batch.input_file_id in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.content(batch.input_file_id).content.startswith(b'{"custom_id": "life-0"')
    client.files.delete(batch.input_file_id)
    assert batch.input_file_id not in [file.id for file in client.files.list(purpose="batch")]


def test_anthropics_client_goes_through_the_whole_life_of_a_batch(server: FaultServer) -> None:
    import anthropic

    server.set(batch_seconds=None)
    client = anthropic_client(server)
    prompts = [new_prompt() for _ in range(3)]
    batch = submit(server, "anthropic", prompts)
    assert (batch.processing_status, batch.request_counts.processing, batch.results_url) == ("in_progress", 3, None)
    with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
        client.messages.batches.results(batch.id)
    server.advance(1)
    batch = client.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 3)
    assert batch.expires_at > batch.ended_at > batch.created_at
    assert batch.archived_at is None
    results = list(client.messages.batches.results(batch.id))
    assert [result.result.message.content[0].text for result in results] == [expected_text(p, "m-1") for p in prompts]


@SHAPES
def test_lists_of_batches_come_in_pages_newest_first(server: FaultServer, shape: str) -> None:
    made = [submit(server, shape, [new_prompt()], f"page{n}").id for n in range(5)]
    if shape == "openai":
        batches: Any = openai_client(server).batches
        first = batches.list(limit=2)
        assert [batch.id for batch in batches.list(limit=2, after=made[3]).data] == made[2:0:-1]
    else:
        batches = anthropic_client(server).messages.batches
        first = batches.list(limit=2)
        assert [batch.id for batch in batches.list(limit=2, after_id=made[3]).data] == made[2:0:-1]
        assert [batch.id for batch in batches.list(limit=2, before_id=made[1]).data] == made[3:1:-1]
        assert (first.first_id, first.last_id) == (made[4], made[3])
    assert [batch.id for batch in first.data] == made[:2:-1]
    assert first.has_more is True
    everything = [batch.id for batch in batches.list(limit=2)]
    assert everything[:5] == made[::-1]
    assert len(everything) == len(set(everything))


@SHAPES
def test_a_batch_goes_by_the_clock_and_expires_by_it(server: FaultServer, shape: str) -> None:
    server.set(batch_seconds=3600.0)
    done, late = ("completed", "expired") if shape == "openai" else ("ended", "ended")
    status = "status" if shape == "openai" else "processing_status"
    batch = submit(server, shape, [new_prompt()])
    assert getattr(poll(server, shape, batch.id), status) == ("validating" if shape == "openai" else "in_progress")
    server.advance(seconds=3601)
    assert getattr(poll(server, shape, batch.id), status) == done
    server.set(batch_seconds=None)
    forgotten = submit(server, shape, [new_prompt(), new_prompt()])
    server.advance(seconds=90_000)
    assert getattr(poll(server, shape, forgotten.id), status) == late
    rows = rows_of(download(server, shape, forgotten.id, errors=True))
    if shape == "openai":
        assert {row["error"]["code"] for row in rows} == {"batch_expired"}
    else:
        assert {row["result"]["type"] for row in rows} == {"expired"}
    assert [bill.billed for bill in server.bills() if bill.batch_id == forgotten.id] == [False, False]


@SHAPES
def test_a_cancelled_batch_bills_only_what_had_run(server: FaultServer, shape: str) -> None:
    server.set(batch_seconds=None)
    batch = submit(server, shape, [new_prompt() for _ in range(4)])
    if shape == "openai":
        server.advance(2)
        assert openai_client(server).batches.cancel(batch.id).status == "cancelling"
    else:
        assert anthropic_client(server).messages.batches.cancel(batch.id).processing_status == "canceling"
    server.advance(1)
    now = poll(server, shape, batch.id)
    billed = [bill.billed for bill in server.bills() if bill.batch_id == batch.id]
    if shape == "openai":
        assert now.status == "cancelled"
        assert now.cancelled_at is not None
        assert billed == [True] * 4
        return
    assert (now.processing_status, now.request_counts.canceled) == ("ended", 4)
    assert billed == [False] * 4


FINALS = {"failed": (0, 0), "expired": (3, 1), "cancelled": (3, 1), "errored": (3, 1)}


@pytest.mark.parametrize("kind", FINALS)
@SHAPES
def test_a_batch_ends_as_its_rule_says(server: FaultServer, shape: str, kind: str) -> None:
    done, undone = FINALS[kind]
    server.set(faults=[{"fault": kind, "done": 0.75}])
    batch = poll(server, shape, submit(server, shape, [new_prompt() for _ in range(4)]).id)
    assert sum(bill.billed for bill in server.bills() if bill.batch_id == batch.id) == done
    if shape == "anthropic":
        counts = batch.request_counts
        named = {"expired": counts.expired, "cancelled": counts.canceled}.get(kind, counts.errored)
        assert (batch.processing_status, counts.succeeded, named) == ("ended", done, 4 - done)
        types = Counter(row["result"]["type"] for row in rows_of(download(server, shape, batch.id)))
        assert types.get("succeeded", 0) == done
        return
    assert batch.status == ("completed" if kind == "errored" else kind)
    if kind == "failed":
        assert (batch.output_file_id, batch.errors.data[0].code) == (None, "token_limit_exceeded")
        return
    assert len(rows_of(download(server, shape, batch.id))) == done
    assert len(rows_of(download(server, shape, batch.id, errors=True))) == undone


@SHAPES
def test_single_rows_of_a_batch_can_go_wrong(server: FaultServer, shape: str) -> None:
    server.set(
        faults=[
            {"fault": "bad_request", "scope": "row", "nth": [count_of_rows(server)]},
            {"fault": "ending", "scope": "row", "reason": "refusal", "nth": [count_of_rows(server) + 1]},
        ]
    )
    batch = submit(server, shape, [new_prompt() for _ in range(3)])
    rows = rows_of(download(server, shape, batch.id))
    assert [bill.billed for bill in server.bills() if bill.batch_id == batch.id] == [False, True, True]
    if shape == "openai":
        assert [row["custom_id"] for row in rows] == ["row-1", "row-2"]
        assert rows[0]["response"]["body"]["choices"][0]["finish_reason"] == "refusal"
        errors = rows_of(download(server, shape, batch.id, errors=True))
        assert [(row["custom_id"], row["response"]["status_code"]) for row in errors] == [("row-0", 400)]
    else:
        assert [row["result"]["type"] for row in rows] == ["errored", "succeeded", "succeeded"]
        assert rows[0]["result"]["error"]["error"]["type"] == "invalid_request_error"
        assert rows[1]["result"]["message"]["stop_reason"] == "refusal"


def count_of_rows(server: FaultServer) -> int:
    return int(server.truth()["by_scope"].get("row", 0))


def test_wrong_files_fail_and_wrong_requests_are_refused(server: FaultServer) -> None:
    import anthropic

    client = openai_client(server)
    line = openai_lines([new_prompt()])
    codes = {}
    for content in (line + b"\n" + line, b"not json", b"", line + b"\n" + openai_lines(["x"], "other", model="m-2")):
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert batch.status == "failed"
        assert batch.errors is not None
        codes[content] = (batch.errors.data or [])[0].code
        assert not any(bill.billed for bill in server.bills() if bill.batch_id == batch.id)
    assert list(codes.values()) == ["duplicate_custom_id", "invalid_json_line", "empty_file", "mismatched_model"]
    for ids in (["a", "a"], ["a b"], ["x" * 65]):
        requests: Any = [{"custom_id": name, "params": body_of("anthropic", "x")} for name in ids]
        with pytest.raises(anthropic.BadRequestError, match="custom_id"):
            anthropic_client(server).messages.batches.create(requests=requests)


def batches_named(server: FaultServer, before: int) -> int:
    return len(server.truth()["batches"]) - before


@SHAPES
@pytest.mark.parametrize(
    "rule", [{"fault": "create_late"}, {"fault": "create_late", "delay": 0.5}, {"fault": "create_lost"}]
)
def test_a_batch_exists_though_its_creator_heard_nothing(server: FaultServer, shape: str, rule: dict[str, Any]) -> None:
    import anthropic
    import openai

    before, billed = len(server.truth()["batches"]), server.truth()["billed"]
    server.set(faults=[rule])
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
        submit(server, shape, [new_prompt(), new_prompt()], timeout=0.2)
    assert batches_named(server, before) == 1
    assert server.truth()["billed"] - billed == 2


@SHAPES
def test_a_batch_appears_after_its_creator_was_cut_off(server: FaultServer, shape: str) -> None:
    import anthropic
    import openai

    before = len(server.truth()["batches"])
    server.set(faults=[{"fault": "create_delayed", "delay": 0.3}])
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
        submit(server, shape, [new_prompt()], timeout=2)
    assert batches_named(server, before) == 0
    time.sleep(0.4)
    assert batches_named(server, before) == 1


@SHAPES
def test_a_refused_batch_does_not_exist(server: FaultServer, shape: str) -> None:
    import anthropic
    import openai

    before = len(server.truth()["batches"])
    server.set(faults=[{"fault": "create_refused", "first": 10**9}])
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)):
        submit(server, shape, [new_prompt()])
    assert batches_named(server, before) == 0


def injured(server: FaultServer, shape: str, kind: str, count: int = 6, **more: Any) -> tuple[list[str], bytes]:
    """What the rows of an injured output should be called, and its bytes."""
    server.set(faults=[{"fault": kind, **more}])
    batch = submit(server, shape, [new_prompt() for _ in range(count)])
    return [f"row-{n}" for n in range(count)], download(server, shape, batch.id)


@SHAPES
def test_outputs_come_with_every_injury(server: FaultServer, shape: str) -> None:
    names, body = injured(server, shape, "out_of_order", 30)
    found = [row["custom_id"] for row in rows_of(body)]
    assert found != names
    assert sorted(found) == sorted(names)
    names, body = injured(server, shape, "duplicate_id", rows=2)
    assert [row["custom_id"] for row in rows_of(body)] == [*names, "row-0", "row-1"]
    names, body = injured(server, shape, "unknown_id")
    assert [row["custom_id"] for row in rows_of(body)] == [*names, "unknown-0"]
    names, body = injured(server, shape, "missing_rows", rows=2)
    assert [row["custom_id"] for row in rows_of(body)] == names[2:]
    names, body = injured(server, shape, "blank_lines")
    assert [row["custom_id"] for row in rows_of(body)] == names
    assert body.count(b"\n\n") == 5
    names, body = injured(server, shape, "torn_last_line")
    assert not body.endswith(b"\n")
    assert len(rows_of(body.rpartition(b"\n")[0])) == 5
    with pytest.raises(ValueError, match=r"codec can't decode|delimiter|Unterminated|Expecting"):
        json.loads(body.rpartition(b"\n")[2])


@SHAPES
def test_swapped_rows_carry_the_names_of_another_chunk(server: FaultServer, shape: str) -> None:
    submit(server, shape, [new_prompt(), new_prompt()], "stranger")
    _, body = injured(server, shape, "swapped", rows=2)
    found = [row["custom_id"] for row in rows_of(body)]
    others = {bill.custom_id for bill in server.bills() if bill.scope == "row"}
    assert found[2:] == [f"row-{n}" for n in range(2, 6)]
    assert set(found[:2]) <= others


@SHAPES
def test_a_changing_output_differs_between_downloads(server: FaultServer, shape: str) -> None:
    server.set(faults=[{"fault": "changing_output"}])
    prompts = [new_prompt() for _ in range(5)]
    batch = submit(server, shape, prompts)
    one, two = download(server, shape, batch.id), download(server, shape, batch.id)
    assert one != two
    texts = [{row["custom_id"]: row_text(shape, row) for row in rows_of(body)} for body in (one, two)]
    assert texts[0] == texts[1] == {f"row-{n}": expected_text(prompt, "m-1") for n, prompt in enumerate(prompts)}
    server.set(faults=[])
    steady = submit(server, shape, prompts)
    assert download(server, shape, steady.id) == download(server, shape, steady.id)


@SHAPES
def test_the_first_downloads_are_cut_and_the_next_is_whole(server: FaultServer, shape: str) -> None:
    batch = submit(server, shape, [new_prompt() for _ in range(3)])
    server.set(faults=[{"fault": "download_cut", "first": 2}])
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead):
            download(server, shape, batch.id)
    assert len(rows_of(download(server, shape, batch.id))) == 3


def test_results_are_gone_when_archived(server: FaultServer) -> None:
    import anthropic
    import openai

    client = anthropic_client(server)
    old = submit(server, "anthropic", [new_prompt()])
    server.set(faults=[{"fault": "archived"}])
    lost = submit(server, "anthropic", [new_prompt()])
    assert poll(server, "anthropic", lost.id).archived_at is not None
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.results(lost.id)
    assert poll(server, "anthropic", old.id).archived_at is None
    server.advance(seconds=30 * 86_400)
    assert poll(server, "anthropic", old.id).archived_at is not None
    gone = poll(server, "openai", submit(server, "openai", [new_prompt()]).id)
    with pytest.raises(openai.NotFoundError):
        openai_client(server).files.content(gone.output_file_id)


@pytest.mark.parametrize("kind", ["poll_5xx", "poll_429"])
@SHAPES
def test_the_first_polls_fail(server: FaultServer, shape: str, kind: str) -> None:
    import anthropic
    import openai

    batch = submit(server, shape, [new_prompt()])
    server.set(faults=[{"fault": kind, "first": 2, "retry_after": "0"}])
    for _ in range(2):
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as failed:
            poll(server, shape, batch.id)
        assert failed.value.status_code == (429 if kind == "poll_429" else 500)
    assert poll(server, shape, batch.id).id == batch.id


def test_generic_faults_strike_other_routes_by_scope(server: FaultServer) -> None:
    import openai

    client = openai_client(server)
    server.set(faults=[{"fault": "server_error", "scope": "upload"}, {"fault": "half_json", "scope": "list"}])
    with pytest.raises(openai.InternalServerError):
        client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    with pytest.raises(json.JSONDecodeError):
        client.batches.list()


# --- The process.


def test_the_log_survives_and_the_process_ends_with_sigterm(tmp_path: Path) -> None:
    with FaultServer(log=tmp_path / "bills.jsonl") as server:
        prompt = new_prompt()
        send(server, "openai", prompt)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0
        with pytest.raises(ConnectionRefusedError):
            send(server, "openai")
    assert [bill.prompt for bill in read_log(tmp_path / "bills.jsonl")] == [prompt]


def test_the_process_ends_when_its_parent_is_killed() -> None:
    script = """
import time
from tests.ledger.fault_server import FaultServer
with FaultServer() as server:
    print(server.process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_kind_of_fault_is_exercised_here() -> None:
    source = Path(__file__).read_text()
    named = set(re.findall(r'"([a-z_0-9]+)"', source)) | set(GENERATION_ERRORS)
    assert named >= KINDS


def test_a_request_costs_little_cpu_at_200_connections() -> None:
    connections, requests = 200, 4_000
    with FaultServer(latency=0.05) as server:
        before, began = cpu_of(server.process.pid), time.monotonic()
        asyncio.run(load(server.port, requests, connections))
        seconds, spent = time.monotonic() - began, cpu_of(server.process.pid) - before
        truth = server.truth()
    print(f"{requests / seconds:.0f} requests/s, {1000 * spent / requests:.3f} ms of the server's CPU for each")
    assert (truth["billed"], truth["written"]) == (requests, requests)
    assert 100 < truth["max_in_flight"] <= connections
    # Measured 0.12 ms alone; the bound leaves room for a machine that is busy.
    assert spent / requests < 0.0004


def cpu_of(pid: int) -> float:
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, requests: int, connections: int) -> None:
    """Send so many different requests of a usual size over so many connections, and read each answer to its end."""
    head = f"POST {PATHS['openai']} HTTP/1.1\r\nhost: x\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers_of("openai").items())
    bodies = (json.dumps(body_of("openai", f"{n} " + "lorem ipsum dolor " * 120)) for n in range(requests))

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in bodies:
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            answered = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert answered.startswith("HTTP/1.1 200 ")
            await reader.readexactly(int(answered.partition("content-length: ")[2].partition("\r\n")[0]))
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))
