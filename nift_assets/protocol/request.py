"""A question to a model, and the hash it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

# Made once: `json.dumps` with arguments makes an encoder for each call.
canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
# A text as that encoder has it.
quoted = json.encoder.encode_basestring

# What a limit of tokens is called among the parameters.
LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to one model: all that shapes its answer and nothing else. `draw` tells repeated questions apart.

    `endpoint` is what kind of server is asked (empty for the provider's own, else its engine, or its host where that is
    not known), `api_version` the version of the protocol where the provider has several. `parameters` are those that
    are sent, no more. `formerly` is the endpoint that the same question was known by before; it shapes nothing.
    """

    provider: str
    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    endpoint: str = ""
    api_version: str | None = None
    draw: int = 0
    formerly: str | None = field(default=None, compare=False)

    @property
    def output_limit(self) -> int | None:
        """The most tokens that an answer may have; None where the request says nothing of it."""
        limit = next((value for name in LIMITS if (value := self.parameters.get(name))), None)
        return int(limit) if limit else None

    def body(self) -> str:
        """The request as canonical JSON; equal requests have equal bodies."""
        return self._front() + self._end(self.parameters)

    def _front(self) -> str:
        """The canonical JSON up to the parameters: names in their order, written down where an encoder would sort them
        again for each request."""
        messages = ", ".join(f'["{message.role}", {quoted(message.content)}]' for message in self.messages)
        version = "null" if self.api_version is None else quoted(self.api_version)
        return (
            f'{{"api_version": {version}, "draw": {self.draw}, "endpoint": {quoted(self.endpoint)}, '
            f'"messages": [{messages}], "model": {quoted(self.model)}, "parameters": '
        )

    def _end(self, parameters: Mapping[str, Any]) -> str:
        return f'{_written(parameters)}, "provider": {quoted(self.provider)}}}'

    @property
    def key(self) -> str:
        """The sha256 of the body: the name of the request and its answer in the ledger."""
        return self._keys[0]

    @property
    def earlier_key(self) -> str | None:
        """The key of the same question under the endpoint that it was known by before; None where there is none."""
        return None if self.formerly is None else replace(self, endpoint=self.formerly, formerly=None).key

    @property
    def limitless_key(self) -> str:
        """The key of this question without a limit of tokens, which it shares with those of every other limit."""
        return self._keys[1]

    @cached_property
    def _keys(self) -> tuple[str, str]:
        text = hashlib.sha256(_encoded(self._front()))
        others = {name: value for name, value in self.parameters.items() if name not in LIMITS}
        # Most of a body is its text, which is hashed once for both.
        limitless = None if len(others) == len(self.parameters) else text.copy()
        text.update(_encoded(self._end(self.parameters)))
        if limitless is None:
            return text.hexdigest(), text.hexdigest()
        limitless.update(_encoded(self._end(others)))
        return text.hexdigest(), limitless.hexdigest()


def _written(parameters: Mapping[str, Any]) -> str:
    """Parameters as canonical JSON. One row's questions have the same, and they are written once for all of them."""
    as_given = repr(parameters)  # 1, 1.0 and True are equal, and are not written alike
    if as_given not in _WRITTEN:
        if len(_WRITTEN) >= MOST_WRITTEN:
            _WRITTEN.clear()
        _WRITTEN[as_given] = canonical(dict(parameters))
    return _WRITTEN[as_given]


_WRITTEN: dict[str, str] = {}
MOST_WRITTEN = 1_000


def restored(body: str) -> Request:
    """The request of a canonical body."""
    fields = json.loads(body)
    messages = tuple(Message(role=role, content=content) for role, content in fields.pop("messages"))
    return Request(**fields, messages=messages)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
