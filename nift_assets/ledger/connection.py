"""The HTTP exchange: a request leaves once, and what comes back is a response or a failure, never an exception."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

from nift_assets import crash_points
from nift_assets.ledger.rate_limiter import MOST_WAIT
from nift_assets.protocol.server import Remote
from nift_assets.secrets import redaction

if TYPE_CHECKING:
    import aiohttp

MOST_BYTES = 16 * 2**20
CONNECT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response as it came; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def request_id(self) -> str | None:
        """The server's own name for the request, if it gives one."""
        return self.headers.get("x-request-id") or self.headers.get("request-id")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why no whole response came. A request that was `sent` may have been billed, any other has cost nothing."""

    cause: str
    message: str
    sent: bool


class Sendable(Protocol):
    """Whatever wants to know that its first byte is about to leave."""

    on_the_wire: bool


@dataclass(frozen=True)
class Connection:
    """The HTTP session with one server: it owns the sockets and the headers, the key among them."""

    _http: aiohttp.ClientSession
    _url: str

    async def post(self, payload: bytes, client_request_id: str, sendable: Sendable) -> Response | Failure:
        """What became of one request, sent once and to no other place than the server's own address."""
        import aiohttp

        crash_points.reach("before_send")
        try:
            async with self._http.post(
                self._url,
                data=payload,
                headers={"X-Client-Request-Id": client_request_id},
                allow_redirects=False,
                trace_request_ctx=sendable,
            ) as response:
                body = await _read(response)
        except aiohttp.ClientConnectorError as error:
            return Failure(cause="unreachable", message=redaction.safe(error), sent=False)
        except _TooLarge as error:
            return Failure(cause="malformed", message=str(error), sent=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = "disconnected" if sendable.on_the_wire else "unreachable"
            return Failure(cause=cause, message=redaction.safe(error), sent=sendable.on_the_wire)
        crash_points.reach("after_body")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Response(status=response.status, headers=headers, body=body)


@asynccontextmanager
async def connect(server: Remote) -> AsyncIterator[Connection]:
    """A connection to a server for the length of a block."""
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_leaves)
    if crash_points.reach is not crash_points._pass:
        trace.on_request_chunk_sent.append(_after_send)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
        # How long an answer may take is the caller's to say, who counts only the time this process was running.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        headers={
            **server.headers(),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "nift",
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # a proxy named by the environment would see what it should not
        trace_configs=[trace],
    ) as http:
        yield Connection(http, server.url)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds the server wants us to wait, at most a minute whatever it says; None where it says nothing usable.

    A date is taken against the server's own `Date`, so that a wrong clock on either side does no harm.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return min(MOST_WAIT, max(0.0, milliseconds / 1000))
    retry_after = headers.get("retry-after")
    if retry_after is None:
        return None
    if (seconds := _number(retry_after)) is not None:
        return min(MOST_WAIT, max(0.0, seconds))
    try:
        until = parsedate_to_datetime(retry_after).timestamp()
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
    except (ValueError, TypeError):
        return None
    return min(MOST_WAIT, max(0.0, until - now))


class _TooLarge(Exception):
    pass


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, unless it is larger than any answer can be."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST_BYTES:
            response.close()
            raise _TooLarge(f"the response is larger than {MOST_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


async def _leaves(_: Any, context: Any, __: Any) -> None:
    """Marks a request whose first byte is about to leave: one that fails before that has cost nothing."""
    context.trace_request_ctx.on_the_wire = True


async def _after_send(*_: Any) -> None:
    crash_points.reach("after_send")


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number == number else None  # not a number is not a wait
