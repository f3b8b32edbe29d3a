"""SQL as it counts: without comments, and with one space where white space stood outside quotes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

# What begins a token that has to be taken as it is, or a comment; all else is one character after the other.
TOKEN = re.compile(
    r"""
      (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<dollars>(?<![\w$])(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag))
    | (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<space>\s+)
    | (?P<word>[\w$]+)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def digest(sql: str) -> str:
    """The digest of a statement in 12 hexadecimal digits: another comment or indentation is the same statement."""
    return hashlib.sha256(without_wording(sql).encode()).hexdigest()[:12]


def without_wording(sql: str) -> str:
    """A statement without its comments, each run of these and white space one space."""
    return "".join(_tokens(sql)).strip()


def _tokens(sql: str) -> Iterator[str]:
    place, spaced = 0, True
    while place < len(sql):
        token = TOKEN.match(sql, place)
        assert token is not None, "a sign is any character"
        place = token.end()
        if token.lastgroup == "block":
            place = _end_of_block(sql, place)
        if token.lastgroup in ("line", "block", "space"):
            if not spaced:
                yield " "
            spaced = True
        else:
            yield token[0]
            spaced = False


def _end_of_block(sql: str, place: int) -> int:
    """Where a comment ends that began before a place; comments may stand in comments."""
    depth = 1
    while depth and place < len(sql):
        if sql.startswith("*/", place):
            depth, place = depth - 1, place + 2
        elif sql.startswith("/*", place):
            depth, place = depth + 1, place + 2
        else:
            place += 1
    return place
