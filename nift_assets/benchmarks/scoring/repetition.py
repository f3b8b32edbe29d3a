"""Answers that repeat themselves or never end, which is what a model does that has not learnt to answer (Tables 10-14).

Two measures, since either misses something: the share of a text in sentences that stood in it before, and the loop a
text ends in, found to the character whatever its sentences are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A loop can be as long as a third of so much of a text's end, of which it fills the last part.
TAIL_CHARACTERS = 4_000
LEAST_TIMES = 3
# Rows of dashes, closing brackets and laughter are no loops.
LEAST_CHARACTERS = 60

_END_OF_SENTENCE = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]*_]*\s+|(?<=[。！？])|\s*[\r\n\x0b\x0c\x85\u2028\u2029]+\s*")
_WORD = re.compile(r"\w")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One piece of text over and over at the end of an answer: the piece, and how often; the last may be cut off."""

    piece: str
    times: float


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold a word, in order, without differences of case and white space."""
    pieces = (" ".join(piece.split()).casefold() for piece in _END_OF_SENTENCE.split(text))
    return [piece for piece in pieces if _WORD.search(piece)]


def repeated_share(text: str) -> float:
    """The share of a text, by characters, in sentences that stood in it before: 0 to just below 1."""
    seen: set[str] = set()
    total = repeated = 0
    for sentence in sentences(text):
        total += len(sentence)
        repeated += len(sentence) if sentence in seen else 0
        seen.add(sentence)
    return repeated / total if total else 0.0


def loop(text: str) -> Loop | None:
    """The shortest piece whose repetition the text ends in, if it stands there `LEAST_TIMES` and fills enough."""
    tail = text.rstrip()[-TAIL_CHARACTERS:]
    for period, more in enumerate(_agreements(tail[::-1])[: len(tail) // LEAST_TIMES + 1]):
        filled = period + more
        if period and filled >= max(LEAST_TIMES * period, LEAST_CHARACTERS) and _WORD.search(tail[-period:]):
            return Loop(piece=_from_a_word_on(tail[-2 * period :], period), times=filled / period)
    return None


def _agreements(text: str) -> list[int]:
    """For each position how many characters from there on are those the text begins with (the Z-array); 0 for the
    first, which is the text itself."""
    agreeing = [0] * len(text)
    left = right = 0
    for place in range(1, len(text)):
        length = min(agreeing[place - left], right - place) if place < right else 0
        while place + length < len(text) and text[length] == text[place + length]:
            length += 1
        agreeing[place] = length
        if place + length > right:
            left, right = place, place + length
    return agreeing


def _from_a_word_on(twice: str, period: int) -> str:
    """The piece of that length in two of them that begins a sentence, or at least a word; a cut leaves it anywhere."""
    for beginning in (r"[.!?\n]\s+(?=\w)", r"\s(?=\S)"):
        for match in re.finditer(beginning, twice):
            if match.end() <= period:
                return twice[match.end() : match.end() + period].strip()
    return twice[:period].strip()
