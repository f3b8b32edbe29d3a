"""A causal model on this machine, run through transformers in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nift_assets.protocol.answer import Reading
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import InProcess
from nift_assets.providers import ProviderInputs, chat_completion, openai
from nift_assets.rows import LanguageModel, Teacher
from nift_training.evaluate import generation
from nift_training.verbs import use_threads

VERSION = 1
API_VERSION: str | None = None
KEY = None
TERMS = "the licence of the model's weights"
IN_PROCESS = True
ANSWERS_FROM = "backbone"
connect_batches = None
AT_A_TIME = 64


def check(row: LanguageModel) -> None:
    """Refuses a teacher that is asked in another way than a local model goes on."""
    if isinstance(row, Teacher) and (row.max_tokens is None or row.system_prompt or row.temperature):
        raise ValueError(
            f"teacher {row.name!r}: a local model goes on greedily, without a system prompt, up to a limit; "
            "set max_tokens, and no system_prompt or temperature above 0"
        )


def connect(model: LanguageModel, inputs: ProviderInputs | None) -> Local:
    """The model in the folder of its backbone."""
    assert inputs is not None, "a local model needs its weights"
    return Local(str(inputs.weights()), inputs.threads)


def read(body: Mapping[str, Any]) -> Reading:
    return openai.read(body)


@dataclass(frozen=True)
class Local(InProcess):
    """Continues the user's text greedily with the model in `folder`; no template, no system prompt.

    A text that leaves no room in the model's context is not cut, which would be another question: it is rejected.
    Texts of one length are answered together, so that little of a batch is padding.
    """

    folder: str
    threads: int | None = None

    @cached_property
    def _generator(self) -> generation.Generator:
        """Loaded once, however many portions are asked."""
        return generation.load(self.folder)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        if not requests:
            return
        if self.threads:
            use_threads(self.threads)
        generator = self._generator
        room: int = generator.model.config.max_position_embeddings
        sized = sorted(((_tokens(generator, request), request) for request in requests), key=lambda pair: pair[0])
        fitting: list[tuple[int, Request]] = []
        for tokens, request in sized:
            if tokens + int(request.parameters["max_tokens"]) <= room:
                fitting.append((tokens, request))
            else:
                yield request, _too_long(tokens, request, room)
        # In portions, so that what is generated is kept while the rest is still under way.
        for start in range(0, len(fitting), AT_A_TIME):
            yield from _answer(generator, fitting[start : start + AT_A_TIME])


def _tokens(generator: generation.Generator, request: Request) -> int:
    return len(generator.tokenizer(request.messages[-1].content)["input_ids"])


def _too_long(tokens: int, request: Request, room: int) -> dict[str, Any]:
    """The error body a server sends for the same mistake."""
    message = f"{tokens} tokens and {request.parameters['max_tokens']} more do not fit the model's context of {room}"
    return {"error": {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}}


def _answer(
    generator: generation.Generator, sized: Sequence[tuple[int, Request]]
) -> Iterator[tuple[Request, dict[str, Any]]]:
    prompts = [request.messages[-1].content for _, request in sized]
    limit = max(request.parameters["max_tokens"] for _, request in sized)
    replies = generation.generate(generator, prompts, max_new_tokens=limit)
    for (tokens, request), reply in zip(sized, replies, strict=True):
        yield (
            request,
            chat_completion(
                model=request.model,
                text=reply.text,
                finish_reason="length" if reply.stopped == "length" else "stop",
                input_tokens=tokens,
                output_tokens=reply.tokens,
            ),
        )
