"""Who can answer: a file per provider, each turning requests into response bodies shaped as chat completions."""

from __future__ import annotations

from typing import Any


def chat_completion(
    *, model: str, text: str, finish_reason: str, input_tokens: int | None = None, output_tokens: int | None = None
) -> dict[str, Any]:
    """A response body as an OpenAI-compatible server sends it, with the fields that are read from it."""
    return {
        "model": model,
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": input_tokens, "completion_tokens": output_tokens},
    }
