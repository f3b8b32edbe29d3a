"""Words counted and their ends found for a whole column, as `str.split()` has them one text at a time."""

from __future__ import annotations

import re
import sys

import numpy as np
import polars as pl
import pytest

from nift_assets.corpus import words
from tests.corpus.documents import WHITE_SPACE, hostile


def test_every_character_that_python_splits_at_is_white_and_no_other() -> None:
    assert [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()] == WHITE_SPACE
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = [f"a{character}b" for character in characters]
    found = words.counts(pl.Series(texts)).to_numpy() == 2
    assert [c for c, splits in zip(characters, found, strict=True) if splits] == WHITE_SPACE


@pytest.mark.parametrize("bytes_at_once", [1, 50, 5_000, 2**20])
def test_words_are_counted_as_python_counts_them(bytes_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BYTES_AT_ONCE", bytes_at_once)
    texts = list(hostile(1_000, seed=bytes_at_once))
    assert words.counts(pl.Series(texts, dtype=pl.String)).to_list() == [len(text.split()) for text in texts]


def test_each_word_ends_where_python_finds_its_end() -> None:
    texts = list(hostile(500, seed=2))
    for few in words.find(pl.Series(texts)):
        for number in range(60):
            ends = few.ends(np.full(len(few.counts), number))
            for text, end in zip(texts[few.row :], ends.tolist(), strict=False):
                found = [match.end() for match in re.finditer(r"\S+", text)]
                expected = len(text[: found[number - 1]].encode()) if 1 <= number < len(found) else 0
                assert end == expected


def test_no_text_has_no_words() -> None:
    assert words.counts(pl.Series([], dtype=pl.String)).to_list() == []
    assert words.counts(pl.Series(["", " ", "", "a", ""])).to_list() == [0, 0, 0, 1, 0]
    assert words.counts(pl.Series(["", ""])).to_list() == [0, 0]
