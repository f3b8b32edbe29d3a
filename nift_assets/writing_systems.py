"""The scripts that are written without spaces between words, and how words of any text are told apart for comparing."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Chinese characters, kana, Thai, Lao, Burmese, Khmer, Tibetan and what stands among them. Korean has spaces.
UNSPACED_RANGES = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaa7f"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
UNSPACED = re.compile(f"[{UNSPACED_RANGES}]")

# A word as texts are compared by: a run of letters and digits, and of a script without spaces each sign by itself.
WORD = re.compile(rf"[{UNSPACED_RANGES}]|(?:(?![{UNSPACED_RANGES}])\w)+")


def is_unspaced(word: str) -> bool:
    """Whether a word is a sign of a script without spaces."""
    return UNSPACED.match(word) is not None


def words(text: str) -> list[str]:
    """The words of a text as texts are compared by, in lower case; punctuation and spaces count for nothing."""
    return WORD.findall(text.lower())


def joined(first: str, second: str) -> str:
    """Two parts of a text as a person would read them on: between two words there is a space, whoever left it out."""
    seam = first[-1:] + second[:1]
    is_within = len(seam) == 2 and all(map(str.isalnum, seam)) and not UNSPACED.search(seam)
    return f"{first} {second}" if is_within else first + second


def unspaced(texts: Iterable[str]) -> int:
    """How many texts are written without spaces between words, for the most part."""
    return sum(2 * len(UNSPACED.findall(text)) > len("".join(text.split())) for text in texts)
