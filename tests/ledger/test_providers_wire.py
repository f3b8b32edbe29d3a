"""What goes over the wire and how what comes back is read: the exact bodies, the errors, the headers of limits."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nift_assets import providers
from nift_assets.protocol.server import Quota, Remote
from nift_assets.providers import anthropic, openai
from nift_assets.rows import Teacher
from nift_assets.studies import load
from tests.ledger.shapes import KEY, KEY_VARIABLE, SHAPES, Asking, Shape, prompts, teacher

both_shapes = pytest.mark.parametrize("shape", SHAPES)
CLAUDES_PROMPT = "Please continue directly from the end of the given sentence without repeating it"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


# ------------------------------------------------------------------------------------------------- what is sent


@dataclass
class Recorder:
    """A server that keeps every byte it is sent and answers with one body."""

    url: str
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def recorder(answer: dict[str, Any]) -> Iterator[Recorder]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            told = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = _any

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Recorder(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ANSWERS: dict[Shape, dict[str, Any]] = {
    "openai": {
        "model": "m-1",
        "system_fingerprint": "fp",
        "choices": [{"message": {"role": "assistant", "content": " and so on."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    },
    "anthropic": {
        "model": "m-1",
        "content": [{"type": "text", "text": " and so on."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
}
# A first half with all that a careless client loses: paragraphs, spaces at the ends, joined signs.
HALF = '  The council met.\n\nIt "agreed" — cafe\u0301, 日本語, 👩\u200d🔬\t\\n and '


def _sent(row: Teacher, shape: Shape, half: str, tmp_path: Path, recorded: Recorder) -> dict[str, Any]:
    url = f"{recorded.url}/v1" if shape == "openai" else recorded.url
    row = Teacher(**{**vars(row), "base_url": url, "key_variable": KEY_VARIABLE})
    asked = Asking(f"sqlite:///{tmp_path}/l.sqlite", row, price=None).ask([half])
    assert asked.counts == {"ok": 1}
    assert asked.answers[0].text == " and so on."
    (method, _, headers, body) = recorded.seen[0]
    assert len(recorded.seen) == 1
    assert method == "POST"
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    return {"path": recorded.seen[0][1], "headers": headers, "body": json.loads(body.decode("utf-8", "surrogatepass"))}


@pytest.mark.usefixtures("key")
def test_openai_gets_the_first_half_and_nothing_else(tmp_path: Path) -> None:
    study = load("paper")
    row = next(t for t in study.teachers if t.provider == "openai")
    with recorder(ANSWERS["openai"]) as recorded:
        sent = _sent(row, "openai", HALF, tmp_path, recorded)
    assert sent["path"] == "/v1/chat/completions"
    assert sent["body"] == {"model": row.model, "messages": [{"role": "user", "content": HALF}], "temperature": 0.0}
    assert list(sent["body"]) == ["model", "messages", "temperature"]
    assert sent["headers"]["authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in sent["headers"]
    assert not [name for name in sent["headers"] if name.startswith("x-stainless")]


@pytest.mark.usefixtures("key")
def test_claude_gets_the_papers_system_prompt_and_limit(tmp_path: Path) -> None:
    study = load("paper")
    row = next(t for t in study.teachers if t.provider == "anthropic")
    with recorder(ANSWERS["anthropic"]) as recorded:
        sent = _sent(row, "anthropic", HALF, tmp_path, recorded)
    assert sent["path"] == "/v1/messages"
    assert sent["body"].pop("system").rstrip(".") == CLAUDES_PROMPT
    assert sent["body"] == {
        "model": row.model,
        "messages": [{"role": "user", "content": HALF}],
        "temperature": 0.0,
        "max_tokens": 4096,
    }
    assert sent["headers"]["x-api-key"] == KEY
    assert sent["headers"]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in sent["headers"]


@both_shapes
def test_every_row_of_the_studies_sends_only_what_the_paper_sends(shape: Shape) -> None:
    rows = [t for name in ("paper", "today") for t in load(name).teachers if t.provider == shape]
    assert rows
    for row in rows:
        (request,) = [providers.request(row, HALF)]
        roles = [message.role for message in request.messages]
        assert roles == (["system", "user"] if shape == "anthropic" else ["user"])
        assert request.messages[-1].content == HALF
        assert request.parameters.get("temperature") == (0.0 if row.supports_temperature else None)
        assert request.parameters.get("max_tokens") == (4096 if shape == "anthropic" else None)
        assert set(request.parameters) <= {"temperature", "max_tokens"}


@both_shapes
def test_a_compatible_server_on_this_machine_needs_no_key_and_is_asked_nothing_but_the_question(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-provider-0123456789")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-provider-0123456789")
    with recorder(ANSWERS[shape]) as recorded:
        row = teacher(shape, recorded.url, key_variable=None)
        asked = Asking(f"sqlite:///{tmp_path}/l.sqlite", row).ask(prompts(12))
    assert asked.counts == {"ok": 12}
    assert {(method, path) for method, path, _, _ in recorded.seen} == {
        ("POST", "/v1/chat/completions" if shape == "openai" else "/v1/messages")
    }
    assert len(recorded.seen) == 12
    assert all("of-the-provider" not in str((headers, body)) for _, _, headers, body in recorded.seen)
    assert all(not {"authorization", "x-api-key"} & headers.keys() for _, _, headers, _ in recorded.seen)


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_a_base_url_of_anthropic_may_end_as_either_sdk_wants_it(end: str) -> None:
    row = teacher("anthropic", "https://proxy.example" + end)
    assert anthropic.connect(row).url == "https://proxy.example/v1/messages"


# ------------------------------------------------------------------------------------------- errors and their meaning


def _openai(message: str = "no", **error: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": None, "param": None, "code": None, **error}}).encode()


def _anthropic(kind: str, message: str = "no") -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}).encode()


CONTEXT = "context_length_exceeded"
TROUBLES: list[tuple[Shape, int, bytes, str, str]] = [
    ("openai", 429, _openai(code="rate_limit_exceeded", type="requests"), "wait", "rate_limit"),
    ("openai", 429, _openai(code="rate_limit_exceeded", type="tokens"), "wait", "rate_limit"),
    ("openai", 429, b"slow down", "wait", "rate_limit"),
    ("openai", 429, _openai(code="insufficient_quota", type="insufficient_quota"), "stop", "quota"),
    ("openai", 429, _openai(code=None, type="insufficient_quota"), "stop", "quota"),
    ("openai", 429, _openai(code="billing_hard_limit_reached"), "stop", "quota"),
    ("openai", 400, _openai(code="billing_hard_limit_reached"), "stop", "quota"),
    ("openai", 401, _openai(code="invalid_api_key"), "stop", "authentication"),
    ("openai", 403, _openai(code="unsupported_country_region_territory"), "stop", "permission"),
    ("openai", 404, _openai(code="model_not_found"), "stop", "not_found"),
    ("openai", 400, _openai(code="unsupported_value", param="temperature"), "row", "parameter"),
    ("openai", 400, _openai(code="context_length_exceeded", param="messages"), "reject", "context_length_exceeded"),
    ("openai", 400, _openai(code="content_policy_violation"), "reject", "content_policy_violation"),
    ("openai", 413, b"", "reject", "http_413"),
    ("openai", 408, b"", "unclear", "http_408"),
    ("openai", 409, b"", "again", "http_409"),
    *(("openai", status, b"<html>bad gateway</html>", "again", f"http_{status}") for status in (500, 502, 503, 529)),
    # Behind a gateway that gave up the answer may have been written, and billed.
    *(("openai", status, b"<html>gateway timeout</html>", "unclear", f"http_{status}") for status in (504, 524)),
    # A firewall's page is about this text; the provider's own words are about the key.
    ("openai", 403, b"<html>blocked</html>", "row", "permission"),
    ("openai", 400, _openai(code="x", param="max_tokens", message="maximum context length is 9"), "reject", CONTEXT),
    ("openai", 429, _openai(code="rate_limit_exceeded", message="Request too large for m"), "reject", "too_large"),
    (
        *("anthropic", 400),
        _anthropic("invalid_request_error", "You have reached your specified API usage limits."),
        *("stop", "quota"),
    ),
    ("openai", 503, b'["not", "an", "object"]', "again", "http_503"),
    ("openai", 500, b'{"error": "a plain text"}', "again", "http_500"),
    ("anthropic", 429, _anthropic("rate_limit_error"), "wait", "rate_limit"),
    ("anthropic", 429, b"", "wait", "rate_limit"),
    (
        "anthropic",
        400,
        _anthropic("invalid_request_error", "Your credit balance is too low to access"),
        "stop",
        "quota",
    ),
    ("anthropic", 402, _anthropic("billing_error"), "stop", "quota"),
    ("anthropic", 401, _anthropic("authentication_error"), "stop", "authentication"),
    ("anthropic", 403, _anthropic("permission_error"), "stop", "permission"),
    ("anthropic", 404, _anthropic("not_found_error"), "stop", "not_found"),
    ("anthropic", 400, _anthropic("invalid_request_error", "temperature: not supported"), "row", "parameter"),
    ("anthropic", 400, _anthropic("invalid_request_error", "prompt is too long"), "reject", "invalid_request_error"),
    ("anthropic", 413, _anthropic("request_too_large"), "reject", "request_too_large"),
    ("anthropic", 529, _anthropic("overloaded_error"), "again", "overloaded"),
    ("anthropic", 500, _anthropic("api_error"), "again", "http_500"),
    ("anthropic", 504, _anthropic("timeout_error"), "unclear", "http_504"),
    ("anthropic", 502, b"<html>bad gateway</html>", "again", "http_502"),
    ("anthropic", 500, b"[1]", "again", "http_500"),
    ("anthropic", 500, b"null", "again", "http_500"),
]


def _remote(shape: Shape) -> Remote:
    row = teacher(shape, "http://127.0.0.1:1", key_variable=None)
    connected = providers.load(shape).connect(row, None)
    assert isinstance(connected, Remote)
    return connected


@pytest.mark.parametrize(("shape", "status", "body", "kind", "cause"), TROUBLES)
def test_an_error_means_what_its_status_type_and_code_say(
    shape: Shape, status: int, body: bytes, kind: str, cause: str
) -> None:
    trouble = _remote(shape).read_error(status, {}, body)
    assert (trouble.kind, trouble.cause) == (kind, cause)
    assert trouble.message
    assert bool(trouble.remedy) == (kind in ("stop", "row"))


# ---------------------------------------------------------------------------------------------- headers of limits


def test_the_limits_in_openais_headers_are_read() -> None:
    told = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "2s",
    }
    expected = Quota(requests_per_minute=500, requests_left=499, tokens_per_minute=30000, tokens_left=29000)
    assert openai.quota(told) == expected


def test_a_limit_per_day_is_no_limit_per_minute() -> None:
    # 10,000 a day: one comes back every 8.64 seconds, as the time until the bucket is full tells.
    told = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9900",
        "x-ratelimit-reset-requests": "14m24s",
    }
    found = openai.quota(told)
    assert found is not None
    assert found.requests_per_minute == pytest.approx(60 / 8.64)


DURATIONS = {
    "1s": 1,
    "120ms": 0.12,
    "6m0s": 360,
    "1h0m2s": 3602,
    "1.5s": 1.5,
    "2m": 120,
    "8.64s": 8.64,
    "0s": 0,
    "1m30.5s": 90.5,
}


@pytest.mark.parametrize(("said", "seconds"), DURATIONS.items())
def test_a_duration_is_read_as_go_writes_it(said: str, seconds: float) -> None:
    assert openai._seconds(said) == pytest.approx(seconds)


@pytest.mark.parametrize("said", [None, "", "soon", "-1s", "1d", "1 s", "1s1h", "."])
def test_a_duration_that_is_none_is_none(said: str | None) -> None:
    assert openai._seconds(said) is None


def test_the_limits_in_anthropics_headers_are_read_and_of_its_tokens_the_scarcest_count() -> None:
    told = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "7500",
    }
    expected = Quota(requests_per_minute=50, requests_left=49, tokens_per_minute=8000, tokens_left=7500)
    assert anthropic.quota(told) == expected


@both_shapes
@pytest.mark.parametrize("said", ["", "many", "-", "nan", "inf", "1e400"])
def test_headers_that_say_nothing_usable_are_as_none(shape: Shape, said: str) -> None:
    names = {
        "openai": ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-limit-tokens"),
        "anthropic": ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-tokens-remaining"),
    }[shape]
    assert _remote(shape).quota(dict.fromkeys(names, said)) is None
    assert _remote(shape).quota({}) is None


# --------------------------------------------------------------------------------------------------- answers as read


def test_a_refusal_of_openai_is_refused_though_it_ended_by_itself() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
    reading = openai.read({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (reading.status, reading.text, reading.detail) == ("refused", "", "I can't help with that.")


def test_the_text_of_claude_is_its_text_blocks_in_order() -> None:
    content = [
        {"type": "text", "text": "one "},
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "two"},
    ]
    reading = anthropic.read({"content": content, "stop_reason": "end_turn", "usage": {"output_tokens": 2}})
    assert (reading.status, reading.text, reading.output_tokens, reading.input_tokens) == ("ok", "one two", 2, None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        "text",
        {"choices": []},
        {"choices": [{"message": {"content": "x"}, "finish_reason": None}]},
        {"choices": [{"message": {"content": "x"}}]},
        {"content": [{"type": "text", "text": "x"}], "stop_reason": None},
        {"error": {"message": "with status 200"}},
    ],
)
@both_shapes
def test_what_is_no_whole_answer_is_none(shape: Shape, body: Any) -> None:
    with pytest.raises((KeyError, IndexError, TypeError, ValueError, AttributeError)):
        providers.read(shape, body)
