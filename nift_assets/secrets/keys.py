"""API keys: from the environment or from a file that it names, and from nowhere else."""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache
from pathlib import Path

SECRET_NAME = re.compile(
    r"((^|_)(APIKEY|KEY|ACCESS_KEY_ID|TOKEN|SECRET|PASSPHRASE|CREDENTIALS?|WEBHOOK)|PASSWORD|PASSWD)(_FILE)?$",
    re.IGNORECASE,
)
# A shorter one may be a word that ordinary text contains, and could not be kept out of what is written.
LEAST_CHARACTERS = 8
MOST_BYTES = 2**16  # a file of keys is small; whatever is larger is something else


def read(variable: str) -> str | None:
    """The key that an environment variable holds, or that the file named by `<variable>_FILE` holds; None without both.

    An empty variable is none. ValueError for a file that cannot be read or that is empty, and for what is no key; it
    never says what is in it.
    """
    if value := os.environ.get(variable, "").strip():
        return _key(value, f"{variable} holds", "set it to the key and nothing else")
    path = os.environ.get(f"{variable}_FILE")
    if not path:
        return None
    remedy = f"set {variable}_FILE to a file that holds the key and that you may read"
    try:
        value = Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"{variable}_FILE is {path!r}, which cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{variable}_FILE is {path!r}, which is not a text; {remedy}") from None
    if not value:
        raise ValueError(f"{variable}_FILE is {path!r}, which is empty; {remedy}")
    return _key(value, f"{variable}_FILE is {path!r}, which holds", f"{remedy} and nothing else")


def _key(value: str, where: str, remedy: str) -> str:
    """The value, if a header can carry it and nothing else looks like it."""
    if len(value.split()) > 1:
        raise ValueError(f"{where} more than one word; {remedy}")
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{where} characters that no key has; {remedy}")
    if len(value) < LEAST_CHARACTERS:
        raise ValueError(
            f"{where} fewer than {LEAST_CHARACTERS} characters, which could not be told from the words of a log; "
            "use a longer key, or none where a server of your own asks for none"
        )
    return value


def require(variable: str, who: str) -> str:
    """The key of `read`; ValueError that tells where to put it when there is none."""
    value = read(variable)
    if value is None:
        raise ValueError(
            f"{who} needs an API key: set {variable} in the environment or in .env, or {variable}_FILE to a file that "
            "holds it"
        )
    return value


def known_keys() -> set[str]:
    """Every secret this process's environment holds or names a file of, to find them in what is about to be written.

    A file that cannot be read holds nothing that could be written; whoever needs its key hears of it from `read`.
    """
    values = set()
    for name in known_names():
        value = os.environ.get(name, "").strip()
        values.add(_content(value) if name.upper().endswith("_FILE") else value)
    return values - {""}


def known_names() -> list[str]:
    """The variables of this process's environment that hold a secret or name its file, as the ends of names tell."""
    return [name for name in os.environ if _is_secret(name)]


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name) is not None


def _content(path: str) -> str:
    """A key file's content, read again only when the file has changed: this is asked for every line of a log."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        return ""
    return _content_of(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _content_of(path: str, _inode: int, _changed: int, _bytes: int) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
