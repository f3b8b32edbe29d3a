"""What answers at an address, by its own word: the engine, its version, and its weights if they have another name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from nift_training import http_client

SECONDS = 5.0
Get = Callable[[str], Any]


def said(base_url: str, model: str, key: str | None = None) -> str | None:
    """The engine behind an OpenAI-compatible address, such as `vllm 0.10.1`; None for one that does not say."""
    base = base_url.rstrip("/")
    root = base.removesuffix("/v1")

    def get(url: str) -> Any:
        return json.loads(http_client.get(url, seconds=SECONDS, key=key))

    try:
        listed = {str(row["id"]): row for row in get(f"{base}/models")["data"]}
        row: Mapping[str, Any] = listed.get(model) or next(iter(listed.values()), {})
        engine = {"vllm": _vllm, "llamacpp": _llama_cpp, "library": _ollama}.get(str(row.get("owned_by")), _tgi)
        return engine(get, root, model, row)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def differs(stated: str, found: str) -> bool:
    """Whether a row states another engine or version than the server says; what people call theirs is not compared."""
    name, _, rest = stated.partition(" ")
    return bool(rest) and name in NAMES and stated != found


def _vllm(get: Get, root: str, model: str, row: Mapping[str, Any]) -> str:
    weights = str(row.get("root") or model)
    return _text("vllm", get(f"{root}/version")["version"], *([weights] if weights != model else []))


def _llama_cpp(get: Get, root: str, model: str, row: Mapping[str, Any]) -> str:
    properties = get(f"{root}/props")
    return _text("llama.cpp", properties["build_info"], str(properties.get("model_path", "")).rpartition("/")[2])


def _ollama(get: Get, root: str, model: str, row: Mapping[str, Any]) -> str:
    digests = {str(tag["name"]): str(tag["digest"]) for tag in get(f"{root}/api/tags")["models"]}
    return _text("ollama", get(f"{root}/api/version")["version"], digests.get(model, "")[:16])


def _tgi(get: Get, root: str, model: str, row: Mapping[str, Any]) -> str:
    info = get(f"{root}/info")
    return _text("tgi", info["version"], str(info.get("model_id") or ""), str(info.get("model_sha") or "")[:16])


NAMES = ("vllm", "llama.cpp", "ollama", "tgi")


def _text(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part)
