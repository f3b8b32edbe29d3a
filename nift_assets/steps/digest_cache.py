"""Digests of code, kept beside Python's compiled files: a process parses sources only after one of them has changed.

Parsing all that the steps of a study reach takes a quarter of a second, which every process would pay that loads the
definitions. What is kept counts as long as each file it was worked out from has the very same bytes.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from nift_assets.store import replacing

# What is called so when there is no such module.
ABSENT = ""


class DigestCache:
    """The digests in a file of the cache, by what they are of, with the digests of the files they were worked out from.

    `parser` is what the digests are worked out by: what another one made is another file.
    """

    def __init__(self, parser: bytes, digest_of: Callable[[str], str]) -> None:
        folder = Path(importlib.util.cache_from_source(__file__)).parent
        self._file = folder / f"digests.{hashlib.sha256(parser).hexdigest()[:16]}.json"
        self._modules: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._is_new = False
        with suppress(OSError):
            content = json.loads(self._file.read_bytes())
            if all(digest_of(name) == digest for name, digest in content["modules"].items()):
                self._modules, self._digests = content["modules"], content["digests"]
        atexit.register(self.save)

    def get(self, of: str) -> str | None:
        """The digest of something, None if it has to be worked out."""
        return self._digests.get(of)

    def add(self, of: str, digest: str, modules: Mapping[str, str]) -> None:
        """Keeps a digest, which was worked out from modules whose files have these digests."""
        self._modules |= modules
        self._digests[of] = digest
        self._is_new = True

    def save(self) -> None:
        """Writes what is new at the end of the process; where nothing may be written the next one parses again."""
        if self._is_new and not sys.dont_write_bytecode:
            content = {"modules": self._modules, "digests": self._digests}
            with suppress(OSError), replacing(self._file) as temporary:
                temporary.write_text(json.dumps(content), encoding="utf-8")
