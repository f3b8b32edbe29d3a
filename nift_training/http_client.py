"""One request over HTTP: to a server of one's own, for a file at its home, to a hook.

A model that costs money is asked through the ledger; batches and the Hub have their own libraries' clients.
"""

from __future__ import annotations

import ipaddress
import json
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

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
        try:
            content: bytes = response.read()
        except HTTPException as error:
            raise OSError(f"the answer broke off ({error!r:.100})") from None
        return content


def _opened(request: urllib.request.Request, seconds: float, key: str | None) -> Any:
    host = urlsplit(request.full_url).hostname or ""
    if key is not None:
        # Unredirected: the key does not go to wherever the server sends us.
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    # What is on this machine is asked here, whatever proxy the environment names, which would see the key.
    here = urllib.request.build_opener(urllib.request.ProxyHandler({})) if is_here(host) else None
    try:
        return here.open(request, timeout=seconds) if here else urllib.request.urlopen(request, timeout=seconds)
    except HTTPException as error:
        raise OSError(f"what answers there speaks no HTTP ({error!r:.100})") from None


def is_here(host: str) -> bool:
    """Whether a host is this machine for sure; of a name, be it 127.0.0.1.example, nobody knows whose it is."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
