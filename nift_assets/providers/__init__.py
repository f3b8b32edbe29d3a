"""Who can answer: a file per provider, which gives every part of `Provider`. Nothing else names a provider."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from nift_assets.protocol.answer import Answer, StoredResponse, lacks_words
from nift_assets.protocol.batches import BatchApi, has_batch_price
from nift_training import http_client

if TYPE_CHECKING:
    from nift_assets.protocol.answer import Reading
    from nift_assets.protocol.request import Request
    from nift_assets.protocol.server import InProcess, Remote
    from nift_assets.rows import LanguageModel, Price

# How the detail of an answer to a prompt that its server has cut begins, by which the contract of completions knows it.
CUT_PROMPT = "the server cut the prompt"
CUT_REMEDY = "give the server a longer context, and its model a new name in the row"


@dataclass(frozen=True, kw_only=True)
class ProviderInputs:
    """What a provider in this process may need, made when it is needed: the second half of a document that it is asked
    about, and weights."""

    second_half: Callable[[str], str]
    weights: Callable[[], Path]
    threads: int | None = None


class Provider(Protocol):
    """A module of this folder. It gives each of these parts, None included: one that lacks a part does not load.

    - `VERSION`: to be raised when what it asks or reads comes out otherwise (see `steps.versions`).
    - `API_VERSION`: the protocol version it sends, where the provider has several.
    - `KEY`: the environment variable with the key of the provider's own server.
    - `TERMS`: what binds whoever uses the words of its models.
    - `IN_PROCESS`: whether it answers in this process, free of charge, and has no server with terms of its own.
    - `ANSWERS_FROM`: what it answers from besides the request: the backbone that a row's `model` names, or the document
      the first half is from, which a request then names in its parameters.
    - `connect_batches`: the batch API of a row's server, where one is sold.
    """

    VERSION: int
    API_VERSION: str | None
    KEY: str | None
    TERMS: str
    IN_PROCESS: bool
    ANSWERS_FROM: Literal["backbone", "document"] | None
    connect_batches: Callable[[LanguageModel], BatchApi] | None

    def check(self, row: LanguageModel) -> None:
        """Raises ValueError for a row of the study that this provider cannot follow."""
        ...

    def connect(self, model: LanguageModel, inputs: ProviderInputs | None) -> InProcess | Remote:
        """The provider ready to be asked. Raises ValueError for a missing key or a row it cannot follow."""
        ...

    def read(self, body: Mapping[str, Any]) -> Reading:
        """What a response body says; KeyError, IndexError, TypeError or ValueError if it is no whole response."""
        ...


PARTS = sorted(name for name in {**Provider.__annotations__, **vars(Provider)} if not name.startswith("_"))


def names() -> list[str]:
    """The names of all providers, one per file of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Provider:
    """The provider of that name; ValueError for one that does not exist, or whose file lacks a part."""
    return cast("Provider", module(name))


@lru_cache  # each answer asks for it, and the folder is looked through
def module(name: str) -> ModuleType:
    """The file of a provider, whole; ValueError as for `load`."""
    if name not in names():
        raise ValueError(f"there is no provider {name!r}; use one of {', '.join(names())}")
    provider = importlib.import_module(f"{__name__}.{name}")
    if missing := [part for part in PARTS if not hasattr(provider, part)]:
        raise ValueError(f"the provider {name!r} lacks {', '.join(missing)}; add it to {provider.__file__}")
    return provider


def runs_backbone(row: LanguageModel) -> bool:
    """Whether a row's model is a backbone of the study, whose weights are run."""
    return load(row.provider).ANSWERS_FROM == "backbone"


def read(name: str, body: Mapping[str, Any]) -> Reading:
    """What a response of that provider says."""
    return load(name).read(body)


def chat_completion(
    *, model: str, text: str, finish_reason: str, input_tokens: int | None = None, output_tokens: int | None = None
) -> dict[str, Any]:
    """A response body as an OpenAI-compatible server sends it, with the fields that are read from it."""
    return {
        "model": model,
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": input_tokens, "completion_tokens": output_tokens},
    }


def request(
    model: LanguageModel,
    user: str,
    *,
    system: str | None = None,
    asked: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    draw: int = 0,
) -> Request:
    """The request a row sends for one user message, with all that shapes the answer and no parameter it refuses.

    `asked` names the model where the row's own name does not pin it (the digest of local weights), `parameters`
    replaces those of the row.
    """
    from nift_assets.protocol.request import Message, Request

    system = system or model.system_prompt
    own = {
        "temperature": _temperature(model),
        model.max_tokens_name: model.max_tokens,
    }
    return Request(
        provider=model.provider,
        endpoint=model.engine or endpoint(model.base_url),
        formerly=model.formerly,
        api_version=model.api_version or load(model.provider).API_VERSION,
        model=asked or model.model,
        messages=(
            *((Message(role="system", content=system),) if system else ()),
            Message(role="user", content=user),
        ),
        parameters={
            name: value for name, value in (own if parameters is None else parameters).items() if value is not None
        },
        draw=draw,
    )


def _temperature(model: LanguageModel) -> float | None:
    """The temperature that is sent; 0 and 0.0 are one, so that they are one key."""
    return float(model.temperature) if model.supports_temperature and model.temperature is not None else None


def endpoint(base_url: str | None) -> str:
    """What kind of server a base URL is, as far as it says: empty for the provider's own, `local` on this machine, else
    its host.

    A port or a path may change without another model answering; another host is another server.
    """
    if base_url is None:
        return ""
    from urllib.parse import urlsplit

    host = urlsplit(base_url).hostname or ""
    return "local" if http_client.is_here(host) else host


def answer(stored: StoredResponse, request: Request | None = None) -> Answer:
    """The answer in a stored response, read by its provider's own rules: a changed rule costs no call.

    What no rule can read is an answer too, of status `other`: it was paid for. So is one to a prompt that the server
    has cut, by its own word or by its count of the tokens of the `request`.
    """
    if stored.http_status >= 400:
        return Answer(key=stored.key, status="rejected", detail=_without_surrogates(_error_message(stored.body)))
    try:
        reading = read(stored.provider, json.loads(stored.body))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return Answer(key=stored.key, status="other", detail=f"the stored response cannot be read: {error!r}"[:300])
    cut = _cut_prompt(reading, None if load(stored.provider).IN_PROCESS else request)
    return Answer(
        key=stored.key,
        status="other" if cut else reading.status,
        text=_without_surrogates(reading.text),
        model=reading.model,
        fingerprint=reading.fingerprint,
        finish_reason=reading.finish_reason,
        input_tokens=reading.input_tokens,
        output_tokens=reading.output_tokens,
        detail=cut or (_without_surrogates(reading.detail) if reading.detail else None),
        thoughts=_without_surrogates(reading.thoughts) if reading.thoughts else None,
    )


def _cut_prompt(reading: Reading, request: Request | None) -> str | None:
    """That a server has cut the prompt, in a line; None where it has read all of it, as far as it says."""
    counted = reading.input_tokens or 0
    if request is not None and lacks_words((message.content for message in request.messages), counted):
        words = sum(len(message.content.split()) for message in request.messages)
        return f"{CUT_PROMPT}: it read {counted:,} tokens for {words:,} words; {CUT_REMEDY}"
    return f"{CUT_PROMPT}, as it says itself; {CUT_REMEDY}" if reading.prompt_cut else None


def _without_surrogates(text: str) -> str:
    """The text with each half of a character that JSON can carry, and no table can, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _error_message(body: bytes) -> str:
    try:
        error: Any = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body[:300].decode("utf-8", "replace")


def connect(model: LanguageModel, price: Price | None) -> BatchApi:
    """The batch API of a row, to submit to; ValueError for a provider that has none, or a price that names none."""
    connected = _maker(model)
    if not has_batch_price(price):
        raise ValueError(
            f"{model.name!r}: no batch price is known for {model.model!r}; give the row a price with batch_input and "
            "batch_output, or materialize `completions`, which asks it directly"
        )
    return connected(model)


def reconnect(model: LanguageModel) -> BatchApi:
    """The batch API of a row, to collect what has been submitted: paid for, whatever the row costs by now."""
    return _maker(model)(model)


def _maker(model: LanguageModel) -> Callable[[LanguageModel], BatchApi]:
    connect_batches = load(model.provider).connect_batches
    if connect_batches is None:
        raise ValueError(
            f"{model.name!r}: the provider {model.provider!r} has no batch API; materialize `completions`, which asks "
            "it directly"
        )
    return connect_batches
