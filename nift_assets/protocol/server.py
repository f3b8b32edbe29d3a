"""What a provider has to know: either it answers in this process, or it says how to ask a server and what came back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nift_assets.protocol.answer import Reading
from nift_assets.protocol.request import Request


class InProcess(ABC):
    """Something that answers here and for nothing: for each request, in any order, the raw body of the response."""

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]: ...


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What the headers of a response say of the limits of this minute; None where they do not say."""

    requests_per_minute: float | None = None
    requests_left: float | None = None
    tokens_per_minute: float | None = None
    tokens_left: float | None = None


ErrorKind = Literal["again", "unclear", "wait", "reject", "stop", "row"]


@dataclass(frozen=True, kw_only=True)
class ServerError:
    """What an error response means.

    `again`: this request may be sent once more (a 5xx, a 529); `unclear`: it may have been billed all the same (a
    gateway's timeout); `wait`: the server wants fewer requests (429); `reject`: this request never gets an answer;
    `stop`: none will get one until a person does something, the remedy says what; `row`: the same, if none got one yet.
    """

    kind: ErrorKind
    cause: str
    message: str
    remedy: str = ""


class Remote(ABC):
    """A server over HTTPS that is paid per token."""

    name: str
    model: str
    url: str
    key: str

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """The headers of every request, the key among them."""

    @abstractmethod
    def payload(self, request: Request) -> dict[str, Any]:
        """The JSON body of one request, as the provider documents it."""

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> Reading:
        """What a response says. Raises KeyError, IndexError, TypeError or ValueError for what is no whole response."""

    @abstractmethod
    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServerError:
        """What a response with an error status means."""

    @abstractmethod
    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """The limits in the headers of a response, if it has any."""

    def counts_limit(self) -> bool:
        """Whether a request's limit of tokens counts against the tokens per minute, and not what is really written."""
        return False

    @abstractmethod
    def key_fingerprint(self) -> str:
        """A short hash of the key: who shares it shares its limits."""
