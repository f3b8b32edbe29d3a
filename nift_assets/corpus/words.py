"""Where words end, for a column of texts at once: a word is what `str.split()` calls one, a run of no white space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

# So many bytes of text are looked at together: few enough for a processor's cache, enough to be worth a call.
BYTES_AT_ONCE = 2**19

# What `str.isspace` holds for white beyond ASCII, in UTF-8: U+0085 and U+00A0 in two bytes, the others in three.
_BEYOND_ASCII = [chr(code).encode() for code in range(128, 0x3001) if chr(code).isspace()]
_SECOND_BYTES = np.array([white[1] for white in _BEYOND_ASCII if len(white) == 2], dtype=np.uint8)
_LAST_BYTES = np.array([white[1] << 8 | white[2] for white in _BEYOND_ASCII if white[0] == 0xE2], dtype=np.uint16)


@dataclass(frozen=True)
class Words:
    """The words of a few texts that lie one behind the other in a column, from row `row` on.

    `counts` is the number of words of each text. The other places count bytes from the first text's beginning:
    `_starts` of the texts, `_ends` of the words with white space behind them; `_before` counts the ends up to each
    text's beginning.
    """

    row: int
    counts: NDArray[np.int64]
    _starts: NDArray[np.int64]
    _ends: NDArray[np.int64]
    _before: NDArray[np.int64]

    def ends(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many bytes of each text there are up to the end of one of its words, by the word's number from 1.

        For a number that is not that of a word with another behind it, it is 0.
        """
        asked = (numbers >= 1) & (numbers < self.counts)
        places = np.zeros(len(numbers), dtype=np.int64)
        places[asked] = self._ends[(self._before + numbers - 1)[asked]] - self._starts[asked]
        return places


def counts(texts: pl.Series) -> pl.Series:
    """How many words each text has."""
    return pl.Series("words", np.concatenate([np.zeros(0, np.int64), *(few.counts for few in find(texts))]))


def find(texts: pl.Series) -> Iterator[Words]:
    """The words of a column of texts without nulls, a few of the texts at a time and in their order."""
    sizes = texts.str.len_bytes().to_numpy().astype(np.int64)
    behind = np.cumsum(sizes)
    row = 0
    while row < len(sizes):
        before = behind[row - 1] if row else 0
        # At least one text, however long it is.
        stop = max(row + 1, int(np.searchsorted(behind, before + BYTES_AT_ONCE, side="right")))
        yield _words(texts.slice(row, stop - row), sizes[row:stop], row)
        row = stop


def _words(texts: pl.Series, sizes: NDArray[np.int64], row: int) -> Words:
    stops = np.cumsum(sizes)
    starts = stops - sizes
    white = _white(_utf8(texts))
    ends = np.flatnonzero(white[1:] > white[:-1]) + 1
    # White space at a text's very beginning ends a word of the text before it at most.
    before = np.searchsorted(ends, starts, side="right")
    inside = np.maximum(np.searchsorted(ends, stops, side="left") - before, 0)
    # Behind the last byte of all stands what an empty text shows: nothing that is a word.
    last = np.append(~white, False)[np.where(sizes > 0, stops - 1, len(white))]
    return Words(row=row, counts=inside + last, _starts=starts, _ends=ends, _before=before)


def _utf8(texts: pl.Series) -> NDArray[np.uint8]:
    """The bytes of the texts, one behind the other."""
    joined = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, places, content = joined.buffers()
    offsets = np.frombuffer(places, dtype=np.int64)[joined.offset : joined.offset + len(texts) + 1]
    return np.frombuffer(content or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]


def _white(utf8: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each byte is of white space, for valid UTF-8 text."""
    # Subtracting wraps around below 0, so one comparison finds a range: tab to carriage return, U+001C to space.
    white: NDArray[np.bool_] = (utf8 - 9 < 5) | (utf8 - 28 < 5)
    if len(utf8) == 0 or utf8.max() < 128:
        return white
    lead = np.flatnonzero(utf8 == 0xC2)
    two = lead[np.isin(utf8[lead + 1], _SECOND_BYTES)]
    white[two] = white[two + 1] = True
    lead = np.flatnonzero(utf8 - 0xE1 < 3)
    last = utf8[lead + 1].astype(np.uint16) << 8 | utf8[lead + 2]
    first = utf8[lead]
    three = lead[
        ((first == 0xE2) & np.isin(last, _LAST_BYTES))
        | ((first == 0xE1) & (last == 0x9A80))  # U+1680
        | ((first == 0xE3) & (last == 0x8080))  # U+3000
    ]
    white[three] = white[three + 1] = white[three + 2] = True
    return white
