"""A causal model on this machine, run through transformers in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nift_assets.ledger import Request
from nift_assets.providers import chat_completion
from nift_training import generation
from nift_training.verbs import use_threads

AT_A_TIME = 64
TOO_LONG = "model_context_window_exceeded"


@dataclass(frozen=True)
class Local:
    """Continues the user's text greedily with the model in `folder`; no template, no system prompt.

    A text that leaves no room in the model's context is not cut, which would be another question: it ends as an error.
    """

    folder: str
    threads: int | None = None

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        if not requests:
            return
        if self.threads:
            use_threads(self.threads)
        generator = generation.load(self.folder)
        fitting: list[Request] = []
        for request in requests:
            if _fits(generator, request):
                fitting.append(request)
            else:
                yield request, chat_completion(model=request.model, text="", finish_reason=TOO_LONG)
        # In portions, so that what is generated is kept while the rest is still under way.
        for start in range(0, len(fitting), AT_A_TIME):
            yield from _answer(generator, fitting[start : start + AT_A_TIME])


def _fits(generator: generation.Generator, request: Request) -> bool:
    tokens = len(generator.tokenizer(request.messages[-1].content)["input_ids"])
    room: int = generator.model.config.max_position_embeddings
    return tokens + int(request.parameters["max_tokens"]) <= room


def _answer(generator: generation.Generator, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
    prompts = [request.messages[-1].content for request in requests]
    limit = max(request.parameters["max_tokens"] for request in requests)
    for request, made in zip(requests, generation.generate(generator, prompts, max_new_tokens=limit), strict=True):
        yield (
            request,
            chat_completion(
                model=request.model,
                text=made.text,
                finish_reason="length" if made.stopped == "length" else "stop",
                output_tokens=made.tokens,
            ),
        )
