"""What a library says when it fails, as part of one of our lines."""

from __future__ import annotations


def one_line(said: object, most: int = 300) -> str:
    """A library's error or reason without its line breaks and what a terminal would obey, and not at length."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(str(said).split())[:most])
