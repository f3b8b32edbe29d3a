"""What became of a request: read from the stored response, whatever it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal[
    "ok", "truncated", "refused", "empty", "other", "rejected", "exhausted", "expired", "unknown", "pending"
]

# A key that ended so is never sent again: the answer was paid for, or the provider will never give one.
FINAL: tuple[Status, ...] = ("ok", "truncated", "refused", "empty", "other", "rejected")
# Sent or given up without an answer that counts: asked again by the next run, `unknown` only when a person says so.
OPEN: tuple[Status, ...] = ("exhausted", "expired", "unknown", "pending")


# More tokens than any model reads or writes is a mistake of the response, not a count.
MOST_TOKENS = 2**40


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a response body says, in the words of no provider: how it ended and the text."""

    status: Status
    text: str
    finish_reason: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A final response as it came: status line, headers and raw body."""

    key: str
    provider: str
    http_status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request; the text is empty where none came. `detail` is the provider's error, if any."""

    key: str
    status: Status
    text: str = ""
    model: str | None = None
    fingerprint: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    detail: str | None = None


def ending(text: str, *, how: Literal["whole", "cut", "refused", "other"]) -> Status:
    """The status of a text that ended in one of four ways; a text without a word is empty however it ended."""
    if how == "refused":
        return "refused"
    if how == "other":
        return "other"
    if not text.strip():
        return "empty"
    return "ok" if how == "whole" else "truncated"


def tokens(value: Any) -> int | None:
    """A count of tokens as a response states it; None for what is no count."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_TOKENS:
        return None
    return value


def answer(stored: Stored) -> Answer:
    """The answer in a stored response, read by its provider's own rules: a changed rule costs no call.

    What no rule can read is an answer too, of status `other`: it was paid for.
    """
    from nift_assets import providers

    if stored.http_status >= 400:
        return Answer(key=stored.key, status="rejected", detail=_whole(_error_message(stored.body)))
    try:
        reading = providers.read(stored.provider, json.loads(stored.body))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return Answer(key=stored.key, status="other", detail=f"the stored response cannot be read: {error!r}"[:300])
    return Answer(
        key=stored.key,
        status=reading.status,
        text=_whole(reading.text),
        model=reading.model,
        fingerprint=reading.fingerprint,
        finish_reason=reading.finish_reason,
        input_tokens=reading.input_tokens,
        output_tokens=reading.output_tokens,
        detail=_whole(reading.detail) if reading.detail else None,
    )


def _whole(text: str) -> str:
    """The text with each half of a character that JSON can carry, and no table can, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _error_message(body: bytes) -> str:
    try:
        error: Any = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body[:300].decode("utf-8", "replace")
