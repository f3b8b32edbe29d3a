"""What may reach Dagster's UI: this machine's own pages, and from elsewhere only who shows the token.

Dagster's webserver asks nobody who they are and runs a mutation for any web page the user has open: by a plain GET, by
a form, by a POST that calls itself text, through a name that resolves to 127.0.0.1. In front of it stands this.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nift_training import http_client

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
SHORTEST_TOKEN = 16
# RFC 9110: a Host is a name or an address, with or without a port; RFC 6454: an Origin is such a one behind a scheme.
HOST = r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?"
ORIGIN = re.compile(rf"null|[a-z][a-z0-9+.-]*://(?P<host>{HOST})")
POLICY_VIOLATION = 1008  # RFC 6455, 7.4.1


@dataclass(frozen=True)
class UiAddress:
    """Where the UI listens, what else it may be called, and what has to be shown to get in."""

    host: str = "127.0.0.1"
    port: int | None = None
    names: tuple[str, ...] = ()
    token: str | None = None

    def with_token(self) -> UiAddress:
        """The same address with a new token if it has none and can be reached from this machine alone: other accounts
        of this machine are strangers too."""
        return self if self.token or not http_client.is_here(self.host) else replace(self, token=secrets.token_hex(16))

    def refuse_unsafe(self) -> None:
        """ValueError for an address that others can reach without a token, and for a token that can be guessed."""
        if self.token is None and not http_client.is_here(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and who reaches the UI can run everything: set "
                "NIFT_UI_TOKEN to a secret (openssl rand -hex 16), or leave out --host and come through ssh -L"
            )
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isalnum()):
            raise ValueError(
                f"NIFT_UI_TOKEN has to be {SHORTEST_TOKEN} letters and digits or more, for example openssl rand -hex 16"
            )

    def url(self, port: int) -> str:
        """What a person opens; it holds the token."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{port}" + (f"/?token={self.token}" if self.token else "")


@dataclass(frozen=True)
class GateRefusal:
    """A status and the sentence that says what to do."""

    status: int
    sentence: str


class Gate:
    """The application behind a check of every request's Host, Origin, method, type and, if there is one, token.

    `names` are the host names it may be called by besides this machine's own, which a reverse proxy has. The port is
    not looked at: through an SSH tunnel it is another one. A page's Origin has to be the very Host it asks.

    A browser hands a cookie to every port of a name: each token has a cookie of its own, so that the UIs of two studies
    do not sign each other out.
    """

    def __init__(self, app: ASGIApp, *, names: Iterable[str] = (), token: str | None = None) -> None:
        self._app = app
        self._names = LOOPBACK | {name.lower() for name in names}
        self._token = token
        self._cookie = f"nift_token_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await _refuse(refusal, scope, receive, send)
        elif answer := self._sign_in(scope):
            await answer(scope, receive, send)
        elif not self._is_known(scope):
            sentence = "open the address with ?token=… that nift ui has printed, or send Authorization: Bearer …"
            refusal = GateRefusal(401, sentence)
            if _was_followed(scope):
                await _asked_again(refusal)(scope, receive, send)
            else:
                await _refuse(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, _framed_by_nobody(send))

    def _refusal(self, scope: Scope) -> GateRefusal | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        named = re.fullmatch(HOST, host)
        origins = [ORIGIN.fullmatch(origin.lower()) for origin in headers.getlist("origin")]
        if named is None or len(headers.getlist("host")) != 1:
            return GateRefusal(400, "a request names one Host, as a name or an address with or without a port")
        if None in origins:
            return GateRefusal(400, "the Origin is none that a browser sends")
        if named[1] not in self._names:
            return GateRefusal(403, f"the host {host!r} is not served here; nift ui --name allows it")
        if any(origin and origin["host"] != host for origin in origins):
            return GateRefusal(403, "a page of another origin may not ask this server")
        return _refused_method(scope, headers) if scope["type"] == "http" else None

    def _sign_in(self, scope: Scope) -> Response | None:
        """The same page without the token in its address, the token being in a cookie from now on."""
        if self._token is None or scope["type"] != "http":
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == "token" and self._is_token(value) for name, value in asked):
            return None
        query = urlencode([(name, value) for name, value in asked if name != "token"])
        # One slash: with two the rest would be another machine's name.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + ("?" + query if query else ""), status_code=303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return answer

    def _is_known(self, scope: Scope) -> bool:
        if self._token is None:
            return True
        connection = HTTPConnection(scope)
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        return self._is_token(connection.cookies.get(self._cookie, "")) or (
            scheme.lower() == "bearer" and self._is_token(bearer.strip())
        )

    def _is_token(self, token: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(token.encode(), self._token.encode())


def _refused_method(scope: Scope, headers: Headers) -> GateRefusal | None:
    """GET reads and never runs GraphQL; POST is JSON and says so, which no form and no other site's script can."""
    if scope["method"] == "POST":
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return None if kind == "application/json" else GateRefusal(415, "only application/json is taken here")
    if scope["method"] not in ("GET", "HEAD"):
        return GateRefusal(405, "only GET, HEAD and POST are answered")
    # With this header Dagster answers with its GraphiQL page and runs nothing.
    if scope["path"].rstrip("/") == "/graphql" and "text/html" not in headers.get("accept", ""):
        return GateRefusal(405, "GraphQL is asked by POST")
    return None


def _was_followed(scope: Scope) -> bool:
    """Whether a person has followed a link to here that stands on a page of no origin or of another."""
    headers = Headers(scope=scope)
    told = (headers.get(f"sec-fetch-{name}") for name in ("site", "mode", "dest"))
    return scope["type"] == "http" and scope["method"] == "GET" and (*told,) == ("cross-site", "navigate", "document")


def _asked_again(refusal: GateRefusal) -> Response:
    """A refusal after which the browser asks once more of its own, and then shows the cookie if it has one.

    It keeps the cookie to itself where a link stands on the report, whose page is of no origin. All that comes of such
    a link is a page that is read: whatever does something is a POST, which has to be of this very origin.
    """
    page = f'<!doctype html><meta http-equiv="refresh" content="0"><p>refused: {refusal.sentence}</p>\n'
    return HTMLResponse(page, refusal.status)


async def _refuse(refusal: GateRefusal, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()  # the client's "connect"; closed before it is accepted it becomes a 403
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.sentence})
        return
    headers = {"Allow": "POST"} if refusal.status == 405 else None
    await PlainTextResponse(f"refused: {refusal.sentence}\n", refusal.status, headers)(scope, receive, send)


def _framed_by_nobody(send: Send) -> Send:
    """Answers that no other site can lay under its own buttons or load as a picture or script."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Frame-Options", "SAMEORIGIN")
            headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        await send(message)

    return sending
