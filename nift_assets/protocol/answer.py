"""What became of a request: read from the stored response, whatever it was."""

from __future__ import annotations

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


# No model reads or writes a tenth of this: a larger count is a mistake of the response. Online and by batch, such an
# answer is booked at what was reserved for it, so that a mistake spends no budget.
MOST_TOKENS = 10**9


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
class StoredResponse:
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


def status_of_text(text: str, *, how: Literal["whole", "cut", "refused", "other"]) -> Status:
    """The status of a text that ended in one of four ways; a text without a word is empty however it ended."""
    if how == "refused":
        return "refused"
    if how == "other":
        return "other"
    if not text.strip():
        return "empty"
    return "ok" if how == "whole" else "truncated"


def token_count(value: Any) -> int | None:
    """A count of tokens as a response states it; None for what is no count."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value
