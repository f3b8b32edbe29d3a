"""Text from a model that an OpenAI-compatible server holds: vLLM, llama.cpp, TGI and others.

Prompts are rendered here and go to `/completions`, never to `/chat/completions`: which template a model is asked with
is for its row to say and not for the server. The adapter may be served unmerged, over its base, where the server can.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

from nift_training import endings, http_client
from nift_training.messages import one_line

TRIES = 6
IN_FLIGHT = 32
SECONDS = 900.0
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
LOCAL = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, kw_only=True)
class ModelServer:
    """A server and the name by which it knows the model; the key is never shown."""

    url: str
    model: str
    key_variable: str | None = None
    first_wait: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the server wrote after one prompt, special tokens included where it sends them, and why it stopped."""

    text: str
    tokens: int
    stopped: Literal["eos", "length"]


def connect(server: ModelServer, adapter: Path | None = None) -> None:
    """Refuses a server that does not serve the model; one that can is asked to load the adapter under that name."""
    host = urllib.parse.urlsplit(server.url)
    if host.username is not None:
        raise ValueError("the server's address holds a name or a password: give its key by --server-key-variable")
    if host.scheme not in ("http", "https"):
        raise ValueError(f"{server.url!r} is no address of a server: give one such as http://localhost:8000/v1")
    if server.key_variable and host.scheme == "http" and host.hostname not in LOCAL:
        raise ValueError(f"{server.url} would get its key in the clear: use https")
    if server.key_variable and not os.environ.get(server.key_variable):
        raise ValueError(f"the server's key is not set: export {server.key_variable}")
    if not re.fullmatch(r"[!-~]*", _key(server) or ""):
        raise ValueError(f"{server.key_variable} holds spaces or characters that no key has: set it to the key alone")
    if server.model in (served := _served(server)):
        return
    if adapter is not None:
        _post(server, "load_lora_adapter", {"lora_name": server.model, "lora_path": str(adapter.absolute())})
        if server.model in (served := _served(server)):
            return
    raise ValueError(
        f"{server.url} does not serve {server.model!r} but {one_line(', '.join(served)) or 'nothing'}: name one of them"
    )


def complete(
    server: ModelServer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    stop: Sequence[str] = (),
) -> list[Completion]:
    """What follows each prompt, in the order of the prompts, up to 32 of them asked at a time."""

    def ask(prompt: str) -> Completion:
        body = _body(server, prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop)
        answer = _post(server, "completions", body)
        try:
            choice = answer["choices"][0]
            text, reason, tokens = choice["text"], choice["finish_reason"], answer["usage"]["completion_tokens"]
        except (KeyError, IndexError, TypeError):
            text = reason = tokens = None
        if not isinstance(tokens, int) or not isinstance(text, str):
            raise ValueError(f"{server.url} answered without text or without counting its tokens: it is not compatible")
        ended = endings.ending(str(reason))
        if ended not in ("whole", "cut"):
            raise ValueError(f"{server.url} ended an answer with {reason!r}: look at its log")
        return Completion(text=text, tokens=tokens, stopped="eos" if ended == "whole" else "length")

    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        return list(threads.map(ask, prompts))


def stream(
    server: ModelServer,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    stop: Sequence[str] = (),
) -> Iterator[Completion]:
    """What follows one prompt as it comes, each time all of it so far; a server that does not stream says it at once.

    It is asked once: whoever watches an answer sees where it broke off, and asks again. `tokens` counts what has come.
    """
    body = _body(server, prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop)
    text, tokens, reason = "", 0, None
    try:
        lines = http_client.stream(
            _address(server, "completions"), {**body, "stream": True}, seconds=SECONDS, key=_key(server)
        )
        for said in _events(lines):
            if "error" in said:
                raise ValueError(f"{server.url} broke off: {one_line(said['error'])}")
            for choice in said["choices"][:1]:
                text, tokens, reason = text + choice["text"], tokens + 1, choice.get("finish_reason") or reason
                ended = endings.ending(str(reason)) if reason else "cut"
                if ended not in ("whole", "cut"):
                    raise ValueError(f"{server.url} ended an answer with {reason!r}: look at its log")
                yield Completion(text=text, tokens=tokens, stopped="eos" if ended == "whole" else "length")
    except http_client.HttpRefused as error:
        detail = one_line(error.read(500).decode("utf-8", "replace"))
        raise ValueError(f"{server.url} refuses with {error.code}: {detail}") from None
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise ValueError(f"{server.url} answered without text: it is not compatible") from None
    except (OSError, HTTPException) as error:
        raise ValueError(f"{server.url} cannot be asked ({error}): start it, or mend its address") from None
    if reason is None:
        raise ValueError(f"{server.url} broke off in the middle of an answer: look at its log")


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of a stream of server-sent events, or the one object of a server that answers at once."""
    whole = b""
    for line in lines:
        field, _, content = line.strip().partition(b":")
        if field == b"data" and content.strip().startswith(b"{"):
            yield json.loads(content)
        elif field not in (b"data", b"event", b"id", b"retry", b""):
            whole += line
    if whole:
        yield json.loads(whole)


def _body(
    server: ModelServer, prompt: str, *, max_tokens: int, temperature: float, seed: int, stop: Sequence[str]
) -> dict[str, Any]:
    return {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        # FastChat cuts at strings itself, where special tokens can still be seen; others than vLLM ignore this.
        "skip_special_tokens": False,
        **({"stop": list(stop)} if stop else {}),
    }


def _served(server: ModelServer) -> list[str]:
    url, key = _address(server, "models"), _key(server)
    listed = _patiently(server, lambda: http_client.get(url, seconds=SECONDS, key=key))
    return [str(model["id"]) for model in listed["data"]]


def _post(server: ModelServer, path: str, body: dict[str, Any]) -> dict[str, Any]:
    url, key = _address(server, path), _key(server)
    return _patiently(server, lambda: http_client.post(url, body, seconds=SECONDS, key=key))


def _key(server: ModelServer) -> str | None:
    return os.environ[server.key_variable] if server.key_variable else None


def _patiently(server: ModelServer, send: Callable[[], bytes]) -> dict[str, Any]:
    """The server's answer; what may pass (busy, restarting) is tried again, nothing else is."""
    for attempt in range(1, TRIES + 1):
        try:
            return _object(server, send())
        except http_client.HttpRefused as error:
            detail = one_line(error.read(500).decode("utf-8", "replace"), 500)
            if error.code not in PASSING or attempt == TRIES:
                raise ValueError(f"{server.url} refuses with {error.code}: {detail}") from None
        except (OSError, json.JSONDecodeError) as error:
            if attempt == TRIES:
                raise ValueError(f"{server.url} cannot be asked ({error}): start it, or mend its address") from None
        time.sleep(server.first_wait * 2 ** (attempt - 1))
    raise AssertionError("the last try returns or raises")


def _object(server: ModelServer, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        return {"said": text.decode("utf-8", "replace")}  # vLLM answers a loaded adapter with a sentence
    content: dict[str, Any] = json.loads(text)
    return content


def _address(server: ModelServer, path: str) -> str:
    return f"{server.url.rstrip('/')}/{path}"
