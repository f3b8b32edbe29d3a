"""A question to a model, and the hash it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

# Made once: `json.dumps` with arguments makes an encoder for each call.
canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode

# What a limit of tokens is called among the parameters.
LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to one model: all that shapes its answer and nothing else. `draw` tells repeated questions apart.

    `endpoint` is what kind of server is asked (empty for the provider's own, else its host), `api_version` the version
    of the protocol where the provider has several. `parameters` are those that are sent, no more.
    """

    provider: str
    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = ""
    api_version: str | None = None
    draw: int = 0

    @property
    def output_limit(self) -> int | None:
        """The most tokens that an answer may have; None where the request says nothing of it."""
        limit = next((value for name in LIMITS if (value := self.parameters.get(name))), None)
        return int(limit) if limit else None

    def body(self) -> str:
        """The request as canonical JSON; equal requests have equal bodies."""
        return canonical(
            {
                "provider": self.provider,
                "endpoint": self.endpoint,
                "api_version": self.api_version,
                "model": self.model,
                "messages": [[m.role, m.content] for m in self.messages],
                "parameters": dict(self.parameters),
                "draw": self.draw,
            }
        )

    @property
    def key(self) -> str:
        """The sha256 of the body: the name of the request and its answer in the ledger."""
        return self._keys[0]

    @property
    def limitless_key(self) -> str:
        """The key of this question without a limit of tokens, which it shares with those of every other limit."""
        return self._keys[1]

    @cached_property
    def _keys(self) -> tuple[str, str]:
        body = self.body()
        others = {name: value for name, value in self.parameters.items() if name not in LIMITS}
        if len(others) == len(self.parameters):
            key = hashlib.sha256(_encoded(body)).hexdigest()
            return key, key
        # Most of a body is its text, which is hashed once for both; the parameters stand behind it.
        behind = f', "provider": {canonical(self.provider)}}}'
        ends = [f"{canonical(parameters)}{behind}" for parameters in (dict(self.parameters), others)]
        text = hashlib.sha256(_encoded(body[: -len(ends[0])]))
        both = [text, text.copy()]
        for digest, end in zip(both, ends, strict=True):
            digest.update(_encoded(end))
        return both[0].hexdigest(), both[1].hexdigest()


def restored(body: str) -> Request:
    """The request of a canonical body."""
    fields = json.loads(body)
    messages = tuple(Message(role=role, content=content) for role, content in fields.pop("messages"))
    return Request(**fields, messages=messages)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
