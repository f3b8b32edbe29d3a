"""What is found at a server that speaks OpenAI's protocol: whether it answers, and which models it lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nift_training import http_client
from nift_training.messages import one_line

SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ServerLook:
    """The address that answered, the models it lists with the tokens each takes, and why it did not answer."""

    url: str
    models: Mapping[str, int | None]
    problem: str | None = None
    is_there: bool = True


def look(url: str, key: str | None = None) -> ServerLook:
    """What a server lists under `/models`, at the address or at `/v1` below it; a problem in words if nothing does."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--base-url is {url!r}; give an address such as http://127.0.0.1:8000/v1")
    base = url.rstrip("/")
    problem, is_there = "", True
    for place in dict.fromkeys([base, *([] if base.endswith("/v1") else [f"{base}/v1"])]):
        try:
            content = json.loads(http_client.get(f"{place}/models", seconds=SECONDS, key=key))
            return ServerLook(url=place, models={str(row["id"]): _context(row) for row in content["data"]})
        except http_client.HttpRefused as error:
            problem = problem or f"it answers /models with HTTP {error.code}"
            if error.code in (401, 403):
                problem = f"it wants a key (HTTP {error.code}); name its variable with --key-variable"
                break
        except OSError as error:
            problem = problem or f"nobody answers there ({one_line(getattr(error, 'reason', error))})"
            is_there = False
            break
        except (ValueError, KeyError, TypeError, AttributeError):
            problem = problem or "what it answers to /models is no list of models"
    return ServerLook(url=base, models={}, problem=problem, is_there=is_there)


def _context(row: Mapping[str, Any]) -> int | None:
    """How many tokens a model takes, where the server says so, as vLLM does."""
    said = row.get("max_model_len")
    return said if isinstance(said, int) and said > 0 else None


def lines(found: ServerLook, model: str) -> list[str]:
    """What was found, a sentence a line."""
    if found.problem:
        return [f"looked at {found.url}: {found.problem}"]
    listed = ", ".join(list(found.models)[:5]) or "none"
    more = f" and {len(found.models) - 5} more" if len(found.models) > 5 else ""
    said = [f"the server answers and lists {listed}{more}"]
    if model not in found.models:
        said.append(f"it does not list {model}")
    elif context := found.models[model]:
        said.append(f"{model} takes {context:,} tokens, prompt and answer together")
    return said
