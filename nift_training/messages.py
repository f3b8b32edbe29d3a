"""What a library says when it fails, as part of one of our lines."""

from __future__ import annotations


def one_line(said: object, most: int = 300) -> str:
    """A library's error or reason without its line breaks, and not at length."""
    return " ".join(str(said).split())[:most]
