"""The cut: where it falls, what it keeps, and that it depends on nothing but the seed and the document."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets.corpus import halves
from tests.corpus.documents import hostile

# White space of every kind str.split() knows, among words of several scripts.
WHITE_SPACE = [chr(c) for c in range(0x3001) if chr(c).isspace()]
TEXTS = st.text(st.one_of(st.sampled_from(WHITE_SPACE), st.characters(exclude_categories=("Cs",))), max_size=300)
WORDS = st.lists(st.text(st.characters(exclude_categories=("Cs", "Z", "C")), min_size=1), min_size=2, max_size=80)


@settings(max_examples=1000)
@given(text=TEXTS, seed=st.integers(0, 2**32))
def test_halves_rejoin_to_the_document(text: str, seed: int) -> None:
    cut = halves.cut(text, document_id="d", seed=seed)
    if len(text.split()) < 2:
        assert cut is None
    else:
        assert cut is not None
        assert cut.first + cut.second == text


@settings(max_examples=500)
@given(words=WORDS, seed=st.integers(0, 2**32), space=st.sampled_from(WHITE_SPACE))
def test_the_cut_falls_after_a_word_of_the_middle_half(words: list[str], seed: int, space: str) -> None:
    text = space.join(words)
    n = len(text.split())
    cut = halves.cut(text, document_id="d", seed=seed)
    if n < 2:
        return
    assert cut is not None
    assert cut.words == n
    assert math.ceil(n / 4) <= cut.cut <= math.floor(3 * n / 4)
    assert len(cut.first.split()) == cut.cut
    assert not cut.first[-1].isspace()
    assert cut.second[0].isspace()


@pytest.mark.parametrize(
    ("seed", "document_id", "choices", "drawn"),
    [(42, "a", 100, 14), (42, "b", 100, 8), (43, "a", 100, 98), (42, "a", 1, 0)],
)
def test_the_draw_is_fixed_for_ever(seed: int, document_id: str, choices: int, drawn: int) -> None:
    assert halves.draw(document_id, seed=seed, choices=choices) == drawn


def test_the_draw_is_uniform() -> None:
    counts = Counter(halves.draw(str(i), seed=1, choices=10) for i in range(20_000))
    chi_square = sum((count - 2_000) ** 2 / 2_000 for count in counts.values())
    assert set(counts) == set(range(10))
    assert chi_square < 27.9  # 9 degrees of freedom, one in a thousand


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a b", "a", " b"),
        ("  a \n\n b  ", "  a", " \n\n b  "),
        ("α\u3000β", "α", "\u3000β"),
        ("one\x1ctwo", "one", "\x1ctwo"),
    ],
)
def test_a_text_of_two_words_is_cut_between_them(text: str, first: str, second: str) -> None:
    cut = halves.cut(text, document_id="d", seed=0)
    assert cut is not None
    assert (cut.first, cut.second) == (first, second)


@pytest.mark.parametrize("text", ["", " \n\t", "word", "\u200b", "漢字" * 1000])
def test_a_text_without_a_place_to_be_cut_is_not_cut(text: str) -> None:
    assert halves.cut(text, document_id="d", seed=0) is None


def test_a_document_is_cut_the_same_alone_and_among_others() -> None:
    texts = [f"text number {i} " * 20 for i in range(50)]
    frame = pl.DataFrame(
        {"document_id": [str(i) for i in range(50)], "sample_rank": list(range(50)), "text": texts},
    )
    together = halves.halve(frame, seed=7)
    assert halves.halve(frame[13:14], seed=7).equals(together[13:14])
    assert halves.halve(frame.reverse(), seed=7).reverse().equals(together)


LONG = ["word " * 2**20, "x" * 5 * 2**20, "nul \x00 between " * 300, "字" * 400_000 + "\u3000" + "字" * 400_000]


def test_a_table_is_cut_as_each_document_is(tmp_path: Path) -> None:
    texts = [*hostile(2_000, seed=3), *LONG, "twelve bytes", "twelve bytes and one", "a b", "a word of twelve", ""]
    columns = {"document_id": [str(i) for i in range(len(texts))], "sample_rank": range(len(texts)), "text": texts}
    frame = pl.DataFrame(columns, schema_overrides={"sample_rank": pl.Int64})
    # As it comes from a file: in several pieces.
    frame = pl.concat([frame[:700], frame[700:701], frame[701:]], rechunk=False)
    cuts = [(str(i), i, halves.cut(text, document_id=str(i), seed=9)) for i, text in enumerate(texts)]
    expected = [(name, i, c.words, c.cut, c.first, c.second) for name, i, c in cuts if c]
    made = halves.halve(frame, seed=9)
    assert made.rows() == expected
    made.write_parquet(tmp_path / "halves.parquet")
    assert pl.read_parquet(tmp_path / "halves.parquet").rows() == expected


def test_no_document_makes_an_empty_table() -> None:
    schema = {"document_id": pl.String, "sample_rank": pl.Int64, "text": pl.String}
    assert halves.halve(pl.DataFrame(schema=schema), seed=1).height == 0
    assert halves.halve(pl.DataFrame({"document_id": ["a"], "sample_rank": [0], "text": ["one"]}), seed=1).height == 0


def test_the_halves_lie_where_the_documents_lie() -> None:
    """A table of articles is cut without a second copy of them."""
    frame = pl.DataFrame({"document_id": ["a", "b"], "sample_rank": [0, 1], "text": ["word " * 2_000] * 2})
    made = halves.halve(frame, seed=1)
    documents, first, second = (buffers(each) for each in (frame["text"], made["first_half"], made["second_half"]))
    assert documents == first == second


def buffers(texts: pl.Series) -> list[int]:
    """Where in memory the texts of a column lie."""
    return [each.address for each in texts.to_arrow(compat_level=pl.CompatLevel.newest()).buffers()[2:]]
