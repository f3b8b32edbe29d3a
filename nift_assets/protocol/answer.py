"""What became of a request: read from the stored response, whatever it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from nift_assets.writing_systems import UNSPACED
from nift_training.endings import Ending

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
    """What a response body says, in the words of no provider: how it ended and the text.

    `thoughts` are what a model thought before it answered, where the server shows them. An answer that the server says
    it `failed` to make may be asked for again; one to a prompt that it says it has cut is no answer to ours.
    """

    status: Status
    text: str
    finish_reason: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    detail: str | None = None
    thoughts: str | None = None
    failed: bool = False
    prompt_cut: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """A final response as it came: its HTTP status and its raw body. `status` is what it was read as before."""

    key: str
    provider: str
    http_status: int
    body: bytes
    status: Status | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request; the text is empty where none came. `detail` is the provider's error, if any, and
    `thoughts` are what the model thought before the text, where its server shows them."""

    key: str
    status: Status
    text: str = ""
    model: str | None = None
    fingerprint: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    detail: str | None = None
    thoughts: str | None = None


def status_of_text(text: str, ending: Ending | None) -> Status:
    """The status of a text by how it ended; a text without a word is empty if it was whole or cut. What ended for a
    reason that nobody knows, or that the server failed to make, is no answer of a kind we know."""
    if ending == "refused":
        return "refused"
    if ending not in ("whole", "cut"):
        return "other"
    if not text.strip():
        return "empty"
    return "ok" if ending == "whole" else "truncated"


# What a chat template and a server's own system prompt may add to a short text.
MOST_ADDED = 512


def lacks_words(texts: Iterable[str], counted: int) -> bool:
    """Whether a server's count of a prompt's tokens says that it has cut the prompt: it is as long as contexts are, and
    the texts have more words than that, or cannot have so many tokens."""
    if counted < 256 or counted % 256:
        return False
    text = "\n".join(texts)
    words = len(text.split()) + len(UNSPACED.findall(text)) // 3
    if counted < words:
        return True
    is_context = counted >= 1024 and counted & (counted - 1) == 0
    return is_context and counted > len(text.encode("utf-8", "surrogatepass")) + MOST_ADDED


def token_count(value: Any) -> int | None:
    """A count of tokens as a response states it; None for what is no count."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value
