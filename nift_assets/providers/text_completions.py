"""A base model behind `/v1/completions` of vLLM, llama.cpp or Ollama: it goes on with a text, without a template.

What `local` does on this machine, at the speed of a server. The first half alone is sent; nothing is put around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nift_assets.protocol.answer import Reading
from nift_assets.protocol.request import Request
from nift_assets.providers import ProviderInputs, openai
from nift_assets.rows import LanguageModel

VERSION = 1
API_VERSION: str | None = None
KEY = openai.KEY
TERMS = "the licence of the model's weights, or the terms of whoever serves it"
IN_PROCESS = False
ANSWERS_FROM = None
connect_batches = None


def check(row: LanguageModel) -> None:
    """Refuses a row that this protocol has no place for."""
    if row.base_url is None:
        raise ValueError(f"{row.name!r}: name the server in base_url, such as http://127.0.0.1:8000/v1")
    if row.system_prompt:
        raise ValueError(f"{row.name!r}: a base model has no system prompt; leave it out, or use the provider 'openai'")
    if row.max_tokens is None or row.max_tokens_name != "max_tokens":
        # OpenAI's protocol ends after 16 tokens where it is told no limit.
        raise ValueError(f"{row.name!r}: a server ends a text after its own limit, often 16 tokens; set max_tokens")


def connect(model: LanguageModel, inputs: ProviderInputs | None = None) -> TextCompletions:
    """The server of a row with its key. A server of one's own on this machine needs no key."""
    url = model.base_url or openai.HOME
    key = openai.key(model, KEY, url)
    return TextCompletions(name="text_completions", model=model.model, url=f"{url.rstrip('/')}/completions", key=key)


def read(body: Mapping[str, Any]) -> Reading:
    """What a text completion says. One without a text or a reason to stop is half a response."""
    choice = body["choices"][0]
    message = {"role": "assistant", "content": choice["text"]}
    return openai.read({**body, "choices": [{"message": message, "finish_reason": choice["finish_reason"]}]})


@dataclass(kw_only=True)
class TextCompletions(openai.OpenAI):
    """One server and base model, ready to be asked."""

    def payload(self, request: Request) -> dict[str, Any]:
        return {"model": request.model, "prompt": request.messages[-1].content, **request.parameters}

    def read(self, body: Mapping[str, Any]) -> Reading:
        return read(body)
