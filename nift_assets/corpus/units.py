"""What a document is cut between: the words of the paper where there are spaces, else what the corpus's row chooses.

Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces between words: to `str.split` an article of
theirs is one word. `words` finds theirs by ICU's dictionaries and leaves what has spaces to the spaces; `sentences`
cuts behind sentences, of any language. ICU's version is pinned with the library's, since another may find other words.

Why ICU: it knows all of these scripts, and 12,000 Chinese characters take it 3 ms. BudouX knows three of them and takes
35 ms; jieba and MeCab know one each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import polars as pl

from nift_assets.corpus import words
from nift_assets.rows import Unit
from nift_assets.writing_systems import UNSPACED

WORD = re.compile(r"\S+")
# What belongs to the words behind it, and white space.
OPENING = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "“‘«‹「『（《〈【〔([{"


def counts(texts: pl.Series, unit: Unit) -> pl.Series:
    """How many units each text has."""
    if unit == "spaces":
        return words.counts(texts)
    return pl.Series("words", [len(ends(text, unit)) for text in texts], dtype=pl.Int64)


def ends(text: str, unit: Unit) -> Sequence[int]:
    """Where each unit of a text ends, in characters; the white space behind it belongs to what follows."""
    if unit == "sentences":
        return _ends_of(0, _sentences(text))
    found: list[int] = []
    for run in WORD.finditer(text):
        unspaced = unit == "words" and UNSPACED.search(run[0])
        found += _ends_of(run.start(), _words(run[0])) if unspaced else [run.end()]
    return found


def _ends_of(start: int, pieces: Iterable[str]) -> list[int]:
    """Where units end that pieces of a text make: a piece without a letter or number goes with the one before it, and
    what opens a quotation with the one behind it."""
    found: list[int] = []
    has_word, last = False, start
    for piece in pieces:
        end = start + len(piece.rstrip(OPENING))
        last = start + len(piece.rstrip()) if piece.strip() else last
        if end > start:
            is_unit = any(map(str.isalnum, piece))
            # What stands in front of the first word opens it.
            if found and not (is_unit and has_word):
                found[-1] = end
            else:
                found.append(end)
            has_word = has_word or is_unit
        start += len(piece)
    if last > (found[-1] if found else last):
        found[-1] = last
    return found


def _words(text: str) -> Iterable[str]:
    from icu4py.breakers import WordBreaker

    return WordBreaker(text, "en")


def _sentences(text: str) -> Iterable[str]:
    from icu4py.breakers import SentenceBreaker

    return SentenceBreaker(text, "en")
