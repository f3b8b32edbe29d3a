"""A causal model on this machine, run through transformers in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nift_assets.ledger import Request
from nift_assets.providers import chat_completion
from nift_training import generation

AT_A_TIME = 64


@dataclass(frozen=True)
class Local:
    """Continues the user's text greedily with the model in `folder`; no template, no system prompt."""

    folder: str

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        # In portions, so that what is generated is kept while the rest is still under way.
        for start in range(0, len(requests), AT_A_TIME):
            yield from self._answer(requests[start : start + AT_A_TIME])

    def _answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        prompts = [request.messages[-1].content for request in requests]
        longest = max(request.parameters["max_tokens"] for request in requests)
        for request, made in zip(requests, generation.complete(self.folder, prompts, longest), strict=True):
            yield (
                request,
                chat_completion(
                    model=request.model,
                    text=made.text,
                    finish_reason="length" if made.stopped == "length" else "stop",
                    output_tokens=made.tokens,
                ),
            )
