"""One request over HTTP: to a server of one's own, for a file at its home, to a hook.

A model that costs money is asked through the ledger; batches and the Hub have their own libraries' clients.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.error import HTTPError

HttpRefused = HTTPError
"""The server answered with an error: its status is `code`, what it said is what `read` gives. All else is OSError."""


def get(url: str, *, seconds: float, key: str | None = None) -> bytes:
    """What lies at an address."""
    return _send(urllib.request.Request(url), seconds, key)


def post(url: str, content: Mapping[str, Any], *, seconds: float, key: str | None = None) -> bytes:
    """What a server answers to a JSON object."""
    body = json.dumps(content).encode()
    return _send(urllib.request.Request(url, body, {"Content-Type": "application/json"}), seconds, key)


def stream(url: str, content: Mapping[str, Any], *, seconds: float, key: str | None = None) -> Iterator[bytes]:
    """The lines of what a server answers to a JSON object, each as it comes; whoever stops reading ends the answer."""
    body = json.dumps(content).encode()
    with _opened(urllib.request.Request(url, body, {"Content-Type": "application/json"}), seconds, key) as response:
        yield from response


def _send(request: urllib.request.Request, seconds: float, key: str | None) -> bytes:
    with _opened(request, seconds, key) as response:
        content: bytes = response.read()
        return content


def _opened(request: urllib.request.Request, seconds: float, key: str | None) -> Any:
    if key is not None:
        # Unredirected: the key does not go to wherever the server sends us.
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    return urllib.request.urlopen(request, timeout=seconds)
