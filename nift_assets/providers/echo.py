"""A fake provider for the demo and the tests: deterministic, free, and as varied as the real ones.

It answers from a hash of the request. As a teacher (`continue`) it shuffles the words it was given and, by chance,
begins a new thought with a capital, is cut off, says nothing or refuses. As a judge it rates (`rate`) or compares
(`compare`) and now and then forgets the verdict; as an auditor (`audit`) it says yes or no, in the many ways models say
it, or neither: every branch downstream has rows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nift_assets.protocol.request import Request
from nift_assets.protocol.server import InProcess
from nift_assets.providers import ProviderInputs, chat_completion
from nift_assets.providers.openai import read as read
from nift_assets.rows import LanguageModel

VERSION = 1
API_VERSION: str | None = None
KEY = None
TERMS = "a fake provider of this project wrote them; nobody has terms"
IN_PROCESS = True
ANSWERS_FROM = None
connect_batches = None

VERDICTS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
# What an auditor says: yes, no, and what is neither though it may look so.
AUDITS = (
    ("Yes. The text begins with a command.", "**Yes**, there are two speakers.", "yes", '"Yes" - a list of answers.'),
    ("No. It is merely an article.", "no, nobody speaks.", "*No*: it tells a story.", "“NO”"),
    ("Perhaps.", "Nothing of the kind.", "Yesterday's news, so probably not.", "The answer is yes.", "I cannot say."),
)


def check(row: LanguageModel) -> None:
    """Any row can be followed; `connect` refuses a model that is none of the behaviours."""


def connect(model: LanguageModel, inputs: ProviderInputs | None = None) -> Echo:
    """The fake provider; ValueError for a model that is none of its behaviours."""
    if model.model not in BEHAVIOURS:
        raise ValueError(f"{model.name!r}: echo has no model {model.model!r}; use one of {', '.join(BEHAVIOURS)}")
    return Echo()


class Echo(InProcess):
    """Answers every request at once, by the behaviour its model names."""

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        for request in requests:
            prompt = request.messages[-1].content
            text, reason = BEHAVIOURS[request.model](prompt, _chance(request))
            yield (
                request,
                chat_completion(
                    model=f"echo/{request.model}",
                    text=text,
                    finish_reason=reason,
                    input_tokens=len(prompt.split()),
                    output_tokens=len(text.split()),
                ),
            )


def _continue(prompt: str, chance: random.Random) -> tuple[str, str]:
    words = prompt.lower().split() or ["nothing"]
    length = chance.randint(20, 90)
    text = " ".join(chance.choices(words, k=length)) + "."
    match chance.randrange(16):
        case 0:
            return " ".join(text.split()[:12]), "length"
        case 1:
            return "", "stop"
        case 2:
            return "", "content_filter"
        case 3 | 4:
            return text[:1].upper() + text[1:], "stop"
        case _:
            return " " + text, "stop"


def _rate(prompt: str, chance: random.Random) -> tuple[str, str]:
    if chance.randrange(40) == 0:
        return "The answer leaves me without an opinion.", "stop"
    return f"The answer has {len(prompt.split())} words around it. Rating: [[{chance.randint(1, 10)}]]", "stop"


def _compare(prompt: str, chance: random.Random) -> tuple[str, str]:
    if chance.randrange(40) == 0:
        return "Both are what they are.", "stop"
    return f"My final verdict is: [[{chance.choice(VERDICTS)}]]", "stop"


def _audit(prompt: str, chance: random.Random) -> tuple[str, str]:
    return chance.choice(chance.choices(AUDITS, weights=(4, 5, 1))[0]), "stop"


BEHAVIOURS: dict[str, Callable[[str, random.Random], tuple[str, str]]] = {
    "continue": _continue,
    "rate": _rate,
    "compare": _compare,
    "audit": _audit,
}


def _chance(request: Request) -> random.Random:
    return random.Random(hashlib.sha256(request.body().encode()).digest())
