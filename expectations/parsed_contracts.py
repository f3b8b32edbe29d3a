"""What the contracts say as YAML, kept beside Python's compiled files: reading it anew takes a tenth of a second, which
every process would pay that loads the graph. What is kept is of a text with the very same bytes."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

# libyaml's where it is compiled in: PyYAML's own takes five times as long.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Of texts that were: a file of all that a person has ever written of a contract would grow for ever.
MOST_KEPT = 500
FILE = Path(importlib.util.cache_from_source(__file__)).parent / f"contracts.yaml-{yaml.__version__}.json"


def parsed(text: str) -> Any:
    """What `yaml.safe_load` gives; its errors."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    if (kept := _kept().get(digest)) is not None:
        with suppress(ValueError):  # an injured file is none
            return json.loads(kept)
    loader = SAFE_LOADER(text)
    try:
        found = loader.get_single_data()
    finally:
        loader.dispose()
    with suppress(TypeError, ValueError):  # a date, or a key that is no text, which JSON does not have
        if json.loads(written := json.dumps(found)) == found:
            if len(_kept()) >= MOST_KEPT:
                _kept().clear()
            _kept()[digest] = written
            _keep_at_the_end()
    return found


_texts: dict[str, str] | None = None
_is_new = False


def _kept() -> dict[str, str]:
    global _texts
    if _texts is None:
        _texts = {}
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads(FILE.read_bytes())
            _texts = {str(digest): str(text) for digest, text in content.items()}
    return _texts


def _keep_at_the_end() -> None:
    global _is_new
    if not _is_new and not sys.dont_write_bytecode:
        _is_new = True
        atexit.register(_save)


def _save() -> None:
    """Where nothing may be written, the next process reads the contracts again."""
    temporary = FILE.with_name(f".{FILE.name}.{os.getpid()}")
    with suppress(OSError):
        FILE.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(_kept()), encoding="utf-8")
        temporary.replace(FILE)
