"""The teacher that is no model: it answers with the document's own second half (the "undistilled" rows of Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nift_assets.protocol.answer import Reading
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import InProcess
from nift_assets.providers import ProviderInputs, chat_completion, openai
from nift_assets.rows import LanguageModel

VERSION = 1
API_VERSION: str | None = None
KEY = None
TERMS = "they are the articles' own"
IN_PROCESS = True
ANSWERS_FROM = "document"
connect_batches = None


def check(row: LanguageModel) -> None:
    """Any row can be followed: no model is asked."""


def connect(model: LanguageModel, inputs: ProviderInputs | None) -> Original:
    """The teacher over the documents it is asked about."""
    assert inputs is not None, "the original teacher answers from documents"
    return Original(inputs.second_half)


def read(body: Mapping[str, Any]) -> Reading:
    """What a response says, word for word: an author's text is nobody's thoughts."""
    return openai.read_plain(body)


@dataclass(frozen=True)
class Original(InProcess):
    """Answers from the second halves by document id; a request names its document in its parameters."""

    second_half: Callable[[str], str]

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        for request in requests:
            text = self.second_half(request.parameters["document"])
            yield request, chat_completion(model="original", text=text, finish_reason="stop")
