"""Anthropic's messages.

The installed SDK sends a protocol version under which a temperature is refused; ours is the last that accepts one, and
a model that refuses it on every version is a row with `supports_temperature=False`. Which was sent stands in each row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from nift_assets.protocol.answer import Reading, status_of_text, token_count
from nift_assets.protocol.batches import (
    TRANSFER_BYTES,
    BatchApi,
    BatchProgress,
    ListedBatch,
    ResultLine,
    client,
    json_bytes,
    newest_of,
    sdk_errors,
)
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import ErrorKind, Quota, Remote, ServerError
from nift_assets.protocol.thoughts import apart, of_parts
from nift_assets.providers import ProviderInputs
from nift_assets.providers.openai import GATEWAY_TIMEOUTS, number, text_or_none
from nift_assets.providers.openai import key as key_for
from nift_assets.rows import LanguageModel
from nift_training.endings import ending

if TYPE_CHECKING:
    import anthropic
    import httpx2

VERSION = 1
API_VERSION: str | None = "2023-06-01"
HOME = "https://api.anthropic.com"
KEY = "ANTHROPIC_API_KEY"
TERMS = (
    "Anthropic's commercial terms: what its models write may not be used to build a competing product or service, "
    "or to train competing models, unless Anthropic has agreed"
)
IN_PROCESS = False
ANSWERS_FROM = None

# How the messages of an account without funds or over its own limit begin; their type is that of any bad request.
OUT_OF_FUNDS = ("credit balance is too low", "usage limits", "organization has been disabled")
# A line of a batch's results has the error but no status.
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
BATCHES = "/v1/messages/batches"


def check(row: LanguageModel) -> None:
    """Refuses a row without a limit of tokens."""
    if row.max_tokens is None:
        raise ValueError(f"{row.name!r}: Anthropic's messages need a limit; set max_tokens (the paper's is 4096)")


def connect(model: LanguageModel, inputs: ProviderInputs | None = None) -> Anthropic:
    """The server of a row with its key and protocol version."""
    url = HOME if model.base_url is None else model.base_url
    version = model.api_version or API_VERSION
    assert version is not None
    return Anthropic(
        name="anthropic",
        model=model.model,
        url=f"{url.rstrip('/').removesuffix('/v1')}/v1/messages",
        key=key_for(model, KEY, url),
        version=version,
    )


@dataclass(kw_only=True)
class Anthropic(Remote):
    """One server and model, ready to be asked."""

    name: str
    model: str
    url: str
    key: str = field(repr=False)
    version: str

    def headers(self) -> dict[str, str]:
        return {"anthropic-version": self.version, **({"x-api-key": self.key} if self.key else {})}

    def payload(self, request: Request) -> dict[str, Any]:
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        messages = [
            {"role": message.role, "content": message.content}
            for message in request.messages
            if message.role != "system"
        ]
        return {
            "model": request.model,
            **({"system": system} if system else {}),
            "messages": messages,
            **request.parameters,
        }

    def read(self, body: Mapping[str, Any]) -> Reading:
        return read(body)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServerError:
        return read_error(status, body, self.model)

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        return quota(headers)

    def key_fingerprint(self) -> str:
        return hashlib.sha256(f"{self.url} {self.key}".encode()).hexdigest()[:16]


def read(body: Mapping[str, Any]) -> Reading:
    """What a message says: its text blocks in order, or its one text, thoughts apart. One without a reason to stop is
    half a response: ValueError."""
    reason = body["stop_reason"]
    if not isinstance(reason, str):
        raise ValueError(f"stop_reason is {reason!r}")
    shown, said = of_parts(body["content"])
    within, text = apart(said)
    thoughts = "\n\n".join(part for part in (shown, within) if part) or None
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    how = ending(reason)
    return Reading(
        status=status_of_text(text, how),
        text=text,
        finish_reason=reason,
        model=text_or_none(body.get("model")),
        input_tokens=token_count(usage.get("input_tokens")),
        output_tokens=token_count(usage.get("output_tokens")),
        thoughts=thoughts,
        failed=how == "failed",
    )


def read_error(status: int, body: bytes, model: str) -> ServerError:
    """What an error response of Anthropic means."""
    error = _error(body)
    kind, message = str(error.get("type") or ""), str(error.get("message") or f"HTTP {status}")
    if kind == "billing_error" or status == 402 or any(words in message for words in OUT_OF_FUNDS):
        remedy = "add credit to the account or raise its limit, then run again: only the rest is asked"
        return ServerError(kind="stop", cause="quota", message=message, remedy=remedy)
    if status == 401:
        remedy = f"put a valid key into {KEY} (or the variable the row names)"
        return ServerError(kind="stop", cause="authentication", message=message, remedy=remedy)
    if status == 403:
        # A firewall's refusal of one text looks different from the provider's refusal of a key: it is no JSON.
        refused: ErrorKind = "stop" if kind else "row"
        remedy = "give the key's workspace access to it"
        return ServerError(kind=refused, cause="permission", message=message, remedy=remedy)
    if status == 404:
        remedy = f"there is no model {model!r} (any more): name another one in the row"
        return ServerError(kind="stop", cause="not_found", message=message, remedy=remedy)
    if status == 400 and "temperature" in message:
        remedy = "set supports_temperature=False in the row, or an api_version that accepts it (2023-06-01)"
        return ServerError(kind="row", cause="parameter", message=message, remedy=remedy)
    if status == 429:
        return ServerError(kind="wait", cause="rate_limit", message=message)
    if status == 529:
        return ServerError(kind="again", cause="overloaded", message=message)
    if status in GATEWAY_TIMEOUTS:
        return ServerError(kind="unclear", cause=f"http_{status}", message=message)
    if status == 409 or status >= 500:
        return ServerError(kind="again", cause=f"http_{status}", message=message)
    return ServerError(kind="reject", cause=kind or f"http_{status}", message=message)


def quota(headers: Mapping[str, str]) -> Quota | None:
    """The limits in the `anthropic-ratelimit-*` headers, if there are any; tokens are the scarcer of in and out."""
    prefix = "anthropic-ratelimit"
    limits = Quota(
        requests_per_minute=number(headers.get(f"{prefix}-requests-limit")),
        requests_left=number(headers.get(f"{prefix}-requests-remaining")),
        tokens_per_minute=_least(headers, "limit"),
        tokens_left=_least(headers, "remaining"),
    )
    return limits if limits != Quota() else None


def _least(headers: Mapping[str, str], what: str) -> float | None:
    names = ("tokens", "input-tokens", "output-tokens")
    values = [n for name in names if (n := number(headers.get(f"anthropic-ratelimit-{name}-{what}"))) is not None]
    return min(values) if values else None


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        parsed = json.loads(body)
        error = parsed["error"]
        return error if isinstance(error, dict) else {"message": str(error)}
    except (ValueError, KeyError, TypeError):
        return {"message": body[:300].decode("utf-8", "replace").strip()}


# -- by batch --------------------------------------------------------------------------------------------------------


def connect_batches(model: LanguageModel) -> AnthropicBatches:
    """The batch API of a row's server."""
    return AnthropicBatches(server=connect(model))


@dataclass(kw_only=True)
class AnthropicBatches(BatchApi):
    """Anthropic's batch API: the requests travel with the creation, and one file comes back.

    A batch carries no name of ours. After a creation without an answer it is known by the number of its requests, until
    its results show whose it is. The limits are 100,000 requests and 256 MB; a chunk is smaller, as memory holds it.
    """

    server: Anthropic
    most_requests: int = 98_000
    most_bytes: int = 96_000_000
    seconds: float = 300.0

    def line(self, request: Request) -> bytes:
        return json_bytes({"custom_id": request.key, "params": self.server.payload(request)})

    def upload(self, chunk: str, lines: Iterable[bytes]) -> str | None:
        return None

    def create(self, chunk: str, file_id: str | None, lines: Iterable[bytes]) -> str:
        # Our own bytes, so that a chunk is as large as it was planned, and what JSON can say is said.
        body = b'{"requests":[' + b",".join(lines) + b"]}"
        with self._client() as (sdk, _):
            from anthropic.types.messages import MessageBatch

            headers = {"Content-Type": "application/json"}
            batch = sdk.post(BATCHES, cast_to=MessageBatch, content=body, options={"headers": headers})
            return str(batch.id)

    def newest(self) -> list[ListedBatch]:
        with self._client() as (sdk, _):
            page = sdk.messages.batches.list(limit=100)
            return newest_of((batch.id, batch.created_at.timestamp()) for batch in page.data)

    def find(self, chunk: str, size: int, since: float) -> list[ListedBatch]:
        candidates = []
        with self._client() as (sdk, _):
            for batch in sdk.messages.batches.list(limit=100):  # newest first, page after page
                created_at = batch.created_at.timestamp()
                if created_at < since:
                    break
                counts = batch.request_counts
                total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
                if total == size:
                    candidates.append(ListedBatch(provider_id=batch.id, created_at=created_at, proven=False))
        return candidates

    def poll(self, provider_id: str) -> BatchProgress:
        with self._client() as (sdk, _):
            batch = sdk.messages.batches.retrieve(provider_id)
            counts = batch.request_counts
            return BatchProgress(
                ended=batch.processing_status == "ended",
                final="cancelled" if counts.canceled else "expired" if counts.expired else "completed",
                done=counts.succeeded,
                sources=[provider_id],
                detail="its results have been archived" if batch.archived_at else None,
            )

    def download(self, source: str, file: IO[bytes]) -> None:
        # The SDK asks whatever address the server names, and shows it the key. This is the documented one.
        with self._client() as (sdk, http):
            request = http.build_request("GET", f"{str(sdk.base_url).rstrip('/')}{BATCHES}/{source}/results")
            request.headers.update({**self.server.headers(), "Accept": "application/binary"})
            response = http.send(request, stream=True)
            try:
                if response.status_code != 200:
                    response.read()
                    raise sdk._make_status_error_from_response(response)
                for part in response.iter_bytes(TRANSFER_BYTES):
                    file.write(part)
            finally:
                response.close()

    def read_line(self, line: Mapping[str, Any]) -> ResultLine:
        key, result = str(line["custom_id"]), line["result"]
        match result["type"]:
            case "succeeded":
                return ResultLine(key=key, kind="answered", body=json_bytes(result["message"]))
            case "expired":
                return ResultLine(key=key, kind="expired")
            case "canceled":
                return ResultLine(key=key, kind="cancelled")
            case _:
                error = result["error"]
                status = STATUSES.get(error["error"]["type"], 500)
                return ResultLine(
                    key=key,
                    kind="error",
                    http_status=status,
                    request_id=error.get("request_id"),
                    body=json_bytes(error),
                )

    def cancel(self, provider_id: str) -> None:
        with self._client() as (sdk, _):
            sdk.messages.batches.cancel(provider_id)

    @contextmanager
    def _client(self) -> Iterator[tuple[anthropic.Anthropic, httpx2.Client]]:
        """The SDK, made to send each request once, to no other place, past every proxy of the environment, and under
        the protocol version of the row: its own refuses a temperature."""
        import anthropic

        with sdk_errors(anthropic, self.server), client(self.seconds) as http:
            sdk = anthropic.Anthropic(
                api_key=self.server.key or "none",
                base_url=self.server.url.removesuffix("/v1/messages"),
                max_retries=0,
                timeout=self.seconds,
                # The SDK's own way to show the key belongs to its own version.
                default_headers={**self.server.headers(), "Authorization": anthropic.omit},  # type: ignore[dict-item]
                http_client=http,
            )
            yield sdk, http
