"""Asking by batch, at half the price: what a provider gives for it, and what the ledger reads of it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, Literal, TypeGuard

from nift_assets.protocol.request import Request
from nift_assets.protocol.server import Remote, ServerError
from nift_assets.rows import Price
from nift_assets.secrets import redaction

if TYPE_CHECKING:
    import ssl

    import httpx2

# So much of a file is in memory while it is transferred.
TRANSFER_BYTES = 2**20


# What providers call a batch that is too large for them, or for the account's queue.
TOO_LARGE = {
    *("token_limit_exceeded", "request_too_large", "too_large", "file_too_large", "batch_too_large"),
    *("max_requests_exceeded", "size_limit_exceeded", "http_413"),
}


class Refused(Exception):
    """The provider answered that it did not do it, and why."""

    def __init__(self, status: int, error: ServerError) -> None:
        super().__init__(error.message)
        self.status, self.error = status, error

    @property
    def for_size(self) -> bool:
        """Whether a smaller chunk may be taken."""
        return self.status == 413 or self.error.cause in TOO_LARGE


class Unclear(Exception):
    """No usable answer came: whether the provider did it is not known, unless it was never `reached`."""

    def __init__(self, message: str, *, reached: bool = True) -> None:
        super().__init__(message)
        self.reached = reached


BatchEnding = Literal["completed", "failed", "expired", "cancelled"]
LineKind = Literal["answered", "error", "expired", "cancelled", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class ListedBatch:
    """A batch in the provider's list that can be one of our chunks; `proven` if it says so itself."""

    provider_id: str
    created_at: float
    proven: bool


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """How far a batch is: `done` requests are answered, so the provider says; `sources` is where the results are,
    `cause` the provider's word for why it failed."""

    ended: bool
    final: BatchEnding = "completed"
    done: int = 0
    sources: Sequence[str] = ()
    detail: str | None = None
    cause: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResultLine:
    """One line of results: whose it is, how it ended, and the body as the same request would have got it online.

    One that is `unreadable` says whose it is and nothing more; its body is the line.
    """

    key: str
    kind: LineKind
    http_status: int = 200
    request_id: str | None = None
    body: bytes = b""


class BatchApi(ABC):
    """The batch API of a server. Every method raises `Refused` or `Unclear`, and sends its request exactly once."""

    server: Remote
    most_requests: int
    most_bytes: int

    @abstractmethod
    def line(self, request: Request) -> bytes:
        """One request as it stands in a chunk, its key the `custom_id`."""

    @abstractmethod
    def upload(self, chunk: str, lines: Iterable[bytes]) -> str | None:
        """The name the provider has given to the uploaded lines; None where they travel with the creation."""

    @abstractmethod
    def create(self, chunk: str, file_id: str | None, lines: Iterable[bytes]) -> str:
        """The provider's name of the batch that it has made of a chunk."""

    @abstractmethod
    def newest(self) -> list[ListedBatch]:
        """The batches that were created last, all at one moment by the provider's clock; none where there are none."""

    @abstractmethod
    def find(self, chunk: str, size: int, since: float) -> list[ListedBatch]:
        """All batches created since then, by the provider's clock, that can be this chunk of so many requests."""

    @abstractmethod
    def poll(self, provider_id: str) -> BatchProgress:
        """How far a batch is."""

    @abstractmethod
    def download(self, source: str, file: IO[bytes]) -> None:
        """Writes one file of results, whole, to the end of a file."""

    @abstractmethod
    def read_line(self, line: Mapping[str, Any]) -> ResultLine:
        """What a line says; KeyError, TypeError or ValueError for what is no line of results."""

    @abstractmethod
    def cancel(self, provider_id: str) -> None:
        """Asks the provider to stop; what it has answered by then is still delivered, and billed."""


def newest_of(listed: Iterable[tuple[str, float]]) -> list[ListedBatch]:
    """Those of a list, each with when it was created, that were created last."""
    batches = [ListedBatch(provider_id=name, created_at=at, proven=False) for name, at in listed]
    last = max((batch.created_at for batch in batches), default=0.0)
    return [batch for batch in batches if batch.created_at == last]


def has_batch_price(price: Price | None) -> TypeGuard[Price]:
    """Whether a price names what a batch costs."""
    return price is not None and price.batch_input is not None and price.batch_output is not None


@contextmanager
def sdk_errors(sdk: ModuleType, server: Remote) -> Iterator[None]:
    """What an official SDK raises, as `Refused` or `Unclear`; both SDKs name their errors alike."""
    import httpx2

    try:
        yield
    except sdk.APIStatusError as error:
        server_error = server.read_error(error.status_code, dict(error.response.headers), _content(error.response))
        message = f"{error.status_code} {redaction.redact(server_error.message)}"
        if server_error.kind == "again":
            raise Unclear(message) from None
        raise Refused(
            error.status_code,
            ServerError(kind=server_error.kind, cause=server_error.cause, message=message, remedy=server_error.remedy),
        ) from None
    except (sdk.APIConnectionError, httpx2.HTTPError) as error:
        cause = error.__cause__ or error
        reached = not isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout))
        raise Unclear(f"{type(cause).__name__}: {redaction.safe(cause)}", reached=reached) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        # A body that is not what the SDK expects breaks it in many ways, none of them an error of its own.
        raise Unclear(f"the response cannot be read: {redaction.safe(error)}") from None


def client(seconds: float) -> httpx2.Client:
    """What an SDK sends with: to no other place than it is told, past every proxy that the environment names."""
    import httpx2

    return httpx2.Client(trust_env=False, follow_redirects=False, timeout=seconds, verify=_certificates())


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: that takes longer than a whole exchange with a server nearby."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


def json_bytes(value: Any) -> bytes:
    """A value as JSON on one line; what UTF-8 cannot say, half a surrogate pair, is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def _content(response: Any) -> bytes:
    try:
        return bytes(response.read())
    except Exception:  # a stream that broke: the status says enough
        return b""
