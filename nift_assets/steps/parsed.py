"""Parsed modules, kept beside Python's compiled ones: a process parses what has changed and nothing else.

Parsing all that the steps of a study reach takes a quarter of a second, which every process would pay that loads the
definitions. What is kept counts for the very bytes it was parsed from, whenever and wherever they were written.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import pickle
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from nift_assets.steps import syntax
from nift_assets.steps.syntax import Module, parse
from nift_assets.store import replacing


def module(name: str, file: Path, *, keep: bool) -> Module:
    """The module of that dotted name as it is parsed from a file. Raises SyntaxError for what is no Python."""
    return _kept().module(name, file, keep=keep)


class Kept:
    """The modules in a file of the cache, by name, each with the digest of what it was parsed from."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._modules: dict[str, tuple[str, Module]] = {}
        with suppress(OSError):
            self._modules = pickle.loads(file.read_bytes())
        self._is_new = False

    def module(self, name: str, file: Path, *, keep: bool) -> Module:
        """The module as it is kept, or parsed where its bytes are others; `keep` what is parsed for the next time."""
        source = file.read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        if name in self._modules and self._modules[name][0] == digest:
            return self._modules[name][1]
        made = parse(name, source.decode(), is_package=file.stem == "__init__")
        if keep:
            self._modules[name] = digest, made
            self._is_new = True
        return made

    def save(self) -> None:
        """Writes what was parsed; where nothing may be written the next process parses again."""
        if self._is_new and not sys.dont_write_bytecode:
            with suppress(OSError), replacing(self._file) as temporary:
                temporary.write_bytes(pickle.dumps(self._modules))
            self._is_new = False


@cache
def _kept() -> Kept:
    # Named after the parser's own bytes: what another parser made is another file.
    parser = Path(syntax.__file__).read_bytes()
    folder = Path(importlib.util.cache_from_source(__file__)).parent
    kept = Kept(folder / f"parsed.{hashlib.sha256(parser).hexdigest()[:16]}.pickle")
    atexit.register(kept.save)
    return kept
