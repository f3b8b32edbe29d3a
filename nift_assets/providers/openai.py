"""OpenAI's chat completions, and every server that speaks them: vLLM, llama.cpp, Ollama, TGI.

The requests are sent by our own dispatch, which writes down each one before it leaves; the SDK's retries are never
used, since they send a request up to three times without an idempotency key.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from nift_assets.protocol.answer import Reading, status_of_text, token_count
from nift_assets.protocol.batches import (
    TRANSFER_BYTES,
    BatchApi,
    BatchProgress,
    LineKind,
    ListedBatch,
    ResultLine,
    client,
    json_bytes,
    newest_of,
    sdk_errors,
)
from nift_assets.protocol.batches import BatchEnding as BatchFinal
from nift_assets.protocol.request import Request
from nift_assets.protocol.server import ErrorKind, Quota, Remote, ServerError
from nift_assets.protocol.thoughts import apart, of_parts
from nift_assets.providers import ProviderInputs, endpoint
from nift_assets.rows import LanguageModel
from nift_assets.secrets import keys
from nift_training.endings import Ending, ending

if TYPE_CHECKING:
    import openai

VERSION = 1
API_VERSION: str | None = None
HOME = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
TERMS = (
    "OpenAI's terms of use: what its models write may not be used to develop models that compete with OpenAI, and "
    "may not be passed off as written by people"
)
IN_PROCESS = False
ANSWERS_FROM = None

# Where servers show what a model thought: vLLM and DeepSeek, OpenRouter and Ollama, Ollama's own API, OpenRouter alone.
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
# How a batch and a line of its results end; the metadata of a batch name our chunk.
FINALS: dict[str, BatchFinal] = {
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}
LINE_ENDINGS: dict[str, LineKind] = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
CHUNK = "nift_chunk"
ENDPOINT: Final = "/v1/chat/completions"
# Behind a gateway that has given up, the model may have written its answer, and it is billed.
GATEWAY_TIMEOUTS = (408, 504, 524)
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def check(row: LanguageModel) -> None:
    """Any row can be followed: what a server of one's own takes is known to that server alone."""


def connect(model: LanguageModel, inputs: ProviderInputs | None = None) -> OpenAI:
    """The server of a row with its key. A server of one's own on this machine needs no key."""
    url = HOME if model.base_url is None else model.base_url
    return OpenAI(name="openai", model=model.model, url=f"{url.rstrip('/')}/chat/completions", key=key(model, KEY, url))


def key(model: LanguageModel, usual: str, url: str) -> str:
    """The key for a row's server: the provider's own key goes to the provider only, another server's is named by its
    row. Raises ValueError for a key that is missing, or would travel in clear."""
    parts = urlsplit(url)
    here = endpoint(url) == "local"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{model.name!r}: base_url is {url!r}; give an address that begins with https://")
    if model.base_url is None:
        return keys.require(usual, f"the row {model.name!r} ({model.provider})")
    if model.key_variable is None:
        return ""
    secret = keys.require(model.key_variable, f"the row {model.name!r} ({parts.hostname})")
    if parts.scheme == "http" and not here:
        raise ValueError(
            f"{model.name!r}: a key would travel in clear to {parts.hostname}; use https:// in base_url, or leave "
            "key_variable out"
        )
    return secret


@dataclass(kw_only=True)
class OpenAI(Remote):
    """One server and model, ready to be asked."""

    name: str
    model: str
    url: str
    key: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def payload(self, request: Request) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        return {"model": request.model, "messages": messages, **request.parameters}

    def read(self, body: Mapping[str, Any]) -> Reading:
        return read(body)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServerError:
        return read_error(status, body, self.model)

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        return quota(headers)

    def counts_limit(self) -> bool:
        return True

    def key_fingerprint(self) -> str:
        return hashlib.sha256(f"{self.url} {self.key}".encode()).hexdigest()[:16]


def read(body: Mapping[str, Any]) -> Reading:
    """What a chat completion says, thoughts apart. One without a reason to stop is half a response: ValueError."""
    told = read_plain(body)
    message = body["choices"][0]["message"]
    # Servers that tell thoughts apart themselves have them in parts of the content, or in one of these fields, some in
    # two; others leave them in the text.
    shown = of_parts(message.get("content"))[0]
    if shown is None and not message.keys().isdisjoint(THOUGHT_FIELDS):
        fields = (apart_from_text(message[name]) for name in THOUGHT_FIELDS if message.get(name))
        shown = next((thoughts for thoughts in fields if thoughts), None)
    within, text = apart(told.text)
    thoughts = "\n\n".join(part for part in (shown, within) if part) or None
    if text == told.text:
        return replace(told, thoughts=thoughts) if thoughts else told
    how = "refused" if told.status == "refused" else ending(told.finish_reason or "")
    return replace(told, status=status_of_text(text, how), text=text, thoughts=thoughts)


def read_plain(body: Mapping[str, Any]) -> Reading:
    """What a chat completion says, its text as it is."""
    choice = body["choices"][0]
    message = choice["message"]
    reason = choice["finish_reason"]
    if not isinstance(reason, str):
        raise ValueError(f"finish_reason is {reason!r}")
    text = of_parts(message.get("content"))[1]
    refusal = message.get("refusal")
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    how: Ending | None = "refused" if refusal and not text else ending(reason)
    return Reading(
        status=status_of_text(text, how),
        text=text,
        finish_reason=reason,
        model=text_or_none(body.get("model")),
        fingerprint=text_or_none(body.get("system_fingerprint")),
        input_tokens=token_count(usage.get("prompt_tokens")),
        output_tokens=token_count(usage.get("completion_tokens")),
        detail=text_or_none(refusal),
        failed=how == "failed",
        prompt_cut=any(isinstance(part, dict) and part.get("truncated") is True for part in (body, choice, usage)),
    )


def text_or_none(value: Any) -> str | None:
    """A text field of a response; None for anything else."""
    return value if isinstance(value, str) else None


def apart_from_text(told: Any) -> str | None:
    """The thoughts in a field of their own, which is a text or parts; None for one without a word."""
    thoughts, text = of_parts(told)
    return (thoughts or text) if (thoughts or text).strip() else None


def read_error(status: int, body: bytes, model: str) -> ServerError:
    """What an error response of OpenAI, or of a server that speaks its protocol, means."""
    error = _error(body)
    code, message = str(error.get("code") or error.get("type") or ""), str(error.get("message") or f"HTTP {status}")
    kind, param = str(error.get("type") or ""), str(error.get("param") or "")
    if code in ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active") or kind in (
        "insufficient_quota",
    ):
        remedy = "add credit to the account or raise its limit, then run again: only the rest is asked"
        return ServerError(kind="stop", cause="quota", message=message, remedy=remedy)
    if status == 401:
        remedy = f"put a valid key into {KEY} (or the variable the row names)"
        return ServerError(kind="stop", cause="authentication", message=message, remedy=remedy)
    if status == 403:
        # A firewall's refusal of one text looks different from the provider's refusal of a key: it is no JSON.
        refused: ErrorKind = "stop" if code else "row"
        remedy = "give the key's project access to it"
        return ServerError(kind=refused, cause="permission", message=message, remedy=remedy)
    if status == 404:
        remedy = f"the server has no model {model!r} (any more): name another one in the row"
        return ServerError(kind="stop", cause="not_found", message=message, remedy=remedy)
    if code == "context_length_exceeded" or "maximum context length" in message:
        return ServerError(kind="reject", cause="context_length_exceeded", message=message)
    if status == 400 and param in ("temperature", "max_tokens", "model"):
        remedy = {
            "temperature": "set supports_temperature=False in the row",
            "max_tokens": "change max_tokens in the row, or set max_tokens_name='max_completion_tokens'",
            "model": "name another model in the row",
        }[param]
        return ServerError(kind="row", cause="parameter", message=message, remedy=remedy)
    if status == 429 and "Request too large" in message:
        return ServerError(kind="reject", cause="too_large", message=message)
    if status == 429:
        return ServerError(kind="wait", cause="rate_limit", message=message)
    if status in GATEWAY_TIMEOUTS:
        return ServerError(kind="unclear", cause=f"http_{status}", message=message)
    if status == 409 or status >= 500:
        return ServerError(kind="again", cause=f"http_{status}", message=message)
    return ServerError(kind="reject", cause=code or f"http_{status}", message=message)


def quota(headers: Mapping[str, str]) -> Quota | None:
    """The limits in the `x-ratelimit-*` headers, if there are any."""
    if not any(f"x-ratelimit-{what}" in headers for what in ("limit-requests", "limit-tokens", "remaining-requests")):
        return None
    limits = Quota(
        requests_per_minute=_limit(headers, "requests"),
        requests_left=number(headers.get("x-ratelimit-remaining-requests")),
        tokens_per_minute=_limit(headers, "tokens"),
        tokens_left=number(headers.get("x-ratelimit-remaining-tokens")),
    )
    return limits if limits != Quota() else None


def _limit(headers: Mapping[str, str], what: str) -> float | None:
    """The limit per minute. A limit per day has the same header: its bucket takes longer than minutes to fill."""
    limit = number(headers.get(f"x-ratelimit-limit-{what}"))
    left = number(headers.get(f"x-ratelimit-remaining-{what}"))
    full_in = _seconds(headers.get(f"x-ratelimit-reset-{what}"))
    if limit is None or left is None or not full_in or left >= limit:
        return limit
    return limit if full_in <= 60 else min(limit, (limit - left) / full_in * 60)


def _seconds(text: str | None) -> float | None:
    """The seconds in a duration such as `6m0s` or `120ms`."""
    match = DURATION.fullmatch(text or "")
    if not match or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def number(text: str | None) -> float | None:
    """The number in a header; None for what is none, and for the -1 of servers that do not limit it."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _error(body: bytes) -> Mapping[str, Any]:
    """The error object of a body: OpenAI wraps it, some compatible servers do not."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return {"message": body[:300].decode("utf-8", "replace").strip()}
    if not isinstance(parsed, dict):
        return {"message": str(parsed)[:300]}
    error = parsed.get("error", parsed)
    return error if isinstance(error, dict) else {"message": str(error)}


# -- by batch --------------------------------------------------------------------------------------------------------


def connect_batches(model: LanguageModel) -> OpenAIBatches:
    """The batch API of a row's server."""
    return OpenAIBatches(server=connect(model))


@dataclass(kw_only=True)
class OpenAIBatches(BatchApi):
    """OpenAI's batch API: a file of lines goes up, a batch is made of it, and two files come back.

    A batch carries the name of our chunk, so that it is found again with certainty. The limits are 50,000 requests and
    200 MB; both are kept at a distance.
    """

    server: OpenAI
    most_requests: int = 49_000
    most_bytes: int = 190_000_000
    seconds: float = 300.0

    def line(self, request: Request) -> bytes:
        payload = self.server.payload(request)
        return json_bytes({"custom_id": request.key, "method": "POST", "url": ENDPOINT, "body": payload})

    def upload(self, chunk: str, lines: Iterable[bytes]) -> str | None:
        with tempfile.TemporaryFile(prefix="nift-chunk-") as file:
            for line in lines:
                file.write(line + b"\n")
            file.seek(0)
            with self._client() as sdk:
                return str(sdk.files.create(file=(f"nift-{chunk}.jsonl", file), purpose="batch").id)

    def create(self, chunk: str, file_id: str | None, lines: Iterable[bytes]) -> str:
        assert file_id is not None, "a batch is made of an uploaded file"
        with self._client() as sdk:
            batch = sdk.batches.create(
                input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={CHUNK: chunk}
            )
            return str(batch.id)

    def newest(self) -> list[ListedBatch]:
        with self._client() as sdk:
            return newest_of((batch.id, batch.created_at) for batch in sdk.batches.list(limit=100).data)

    def find(self, chunk: str, size: int, since: float) -> list[ListedBatch]:
        candidates = []
        with self._client() as sdk:
            for batch in sdk.batches.list(limit=100):  # newest first, page after page
                if batch.created_at < since:
                    break
                if (batch.metadata or {}).get(CHUNK) == chunk:
                    candidates.append(ListedBatch(provider_id=batch.id, created_at=batch.created_at, proven=True))
        return candidates

    def poll(self, provider_id: str) -> BatchProgress:
        with self._client() as sdk:
            batch = sdk.batches.retrieve(provider_id)
            found = (batch.errors and batch.errors.data) or []
            errors = [error.message or str(error.code) for error in found]
            return BatchProgress(
                ended=batch.status in FINALS,
                final=FINALS.get(batch.status, "completed"),
                done=batch.request_counts.completed if batch.request_counts else 0,
                sources=[source for source in (batch.output_file_id, batch.error_file_id) if source],
                detail="; ".join(sorted(set(errors)))[:500] or None,
                cause=next((error.code for error in found if error.code), None),
            )

    def download(self, source: str, file: IO[bytes]) -> None:
        with self._client() as sdk, sdk.files.with_streaming_response.content(source) as response:
            for part in response.iter_bytes(TRANSFER_BYTES):
                file.write(part)

    def read_line(self, line: Mapping[str, Any]) -> ResultLine:
        key, response = str(line["custom_id"]), line.get("response")
        if response is None:
            kind = LINE_ENDINGS.get(line["error"]["code"], "error")
            return ResultLine(key=key, kind=kind, http_status=500, body=json_bytes({"error": line["error"]}))
        return ResultLine(
            key=key,
            kind="answered" if response["status_code"] == 200 else "error",
            http_status=int(response["status_code"]),
            request_id=response.get("request_id"),
            body=json_bytes(response["body"]),
        )

    def cancel(self, provider_id: str) -> None:
        with self._client() as sdk:
            sdk.batches.cancel(provider_id)

    @contextmanager
    def _client(self) -> Iterator[openai.OpenAI]:
        """The SDK, made to send each request once, to no other place, past every proxy of the environment."""
        import openai

        with sdk_errors(openai, self.server), client(self.seconds) as http:
            yield openai.OpenAI(
                api_key=self.server.key or "none",  # a server of one's own may want none, the SDK always has one
                base_url=self.server.url.removesuffix("/chat/completions"),
                max_retries=0,
                timeout=self.seconds,
                http_client=http,
            )
