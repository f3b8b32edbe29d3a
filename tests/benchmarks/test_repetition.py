"""Repetition in answers: counted by sentences, found to the character, and never where a text merely looks alike."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets.benchmarks.scoring import repetition
from nift_assets.benchmarks.scoring.repetition import loop, repeated_share, sentences

PARAGRAPH = "The facilitator leads the group. Nobody speaks! Then, at last, somebody does. "


@pytest.mark.parametrize("text", ["", " \n\t ", "-----\n-----\n-----\n-----", "}\n}\n}\n", "…", "\u2028\u2028"])
def test_a_text_without_words_repeats_nothing(text: str) -> None:
    assert sentences(text) == []
    assert repeated_share(text) == 0.0
    assert loop(text) is None


def test_sentences_end_at_stops_and_lines_and_differ_by_their_words_only() -> None:
    assert sentences('One two. "Three?" Four\nfive  six\r\n\r\nSEVEN. ') == [
        "one two.",
        '"three?',
        "four",
        "five six",
        "seven.",
    ]
    assert sentences("我走了。你呢？好") == ["我走了。", "你呢？", "好"]
    assert sentences("Version 2.5 of example.org") == ["version 2.5 of example.org"], "a dot within a word ends nothing"


def test_the_repeated_share_is_that_of_the_characters() -> None:
    assert repeated_share("Once.") == 0.0
    assert repeated_share("Same one. Same one.") == pytest.approx(0.5)
    assert repeated_share("SAME  one.\nsame one. Other one.") == pytest.approx(9 / 28)
    assert repeated_share("A long sentence that stands alone here. No. No.") < 0.1, (
        "two words weigh as little as they are"
    )


def test_a_paragraph_that_goes_on_until_it_is_cut_is_a_loop() -> None:
    text = "To begin with, an answer. " + (PARAGRAPH * 40)[:-23]
    found = loop(text)
    assert found is not None
    assert found.piece == PARAGRAPH.strip(), "told from the beginning of a sentence, wherever the limit cut it"
    assert found.times == pytest.approx(39.7, abs=0.6)
    assert repeated_share(text) > 0.9


@pytest.mark.parametrize(
    ("text", "piece", "times"),
    [
        ("ha" * 200, "ha", 200),
        ("a" * 100, "a", 100),
        ("no " * 50, "no", 50),
        ("Eins, zwei.\n" * 9, "Eins, zwei.", 9),
        ("Ha! " * 20 + "   ", "Ha!", 20),
        ("雨が降る。" * 30, "雨が降る。", 30),
    ],
)
def test_short_pieces_loop_too(text: str, piece: str, times: float) -> None:
    found = loop(text)
    assert found is not None
    assert found.piece == piece
    assert found.times == pytest.approx(times, abs=0.5)


@pytest.mark.parametrize(
    "text",
    [
        PARAGRAPH * 2,  # said twice is no loop
        "Aaaaargh! Hahahaha …",
        "| a | b |\n|---|---|\n" + "-" * 300,
        PARAGRAPH * 9 + "And then it ended as an answer should.",
        "\n".join(f"{n}. Step number {n} of the plan." for n in range(1, 60)),
        "0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987",
    ],
)
def test_what_only_looks_alike_is_no_loop(text: str) -> None:
    assert loop(text) is None


def test_a_loop_is_found_in_the_end_of_a_text_of_any_length() -> None:
    started = time.process_time()
    found = loop("".join(chr(65 + n * n % 61) for n in range(200_000)) + PARAGRAPH * 100)
    assert found is not None
    assert found.times * len(PARAGRAPH) <= repetition.TAIL_CHARACTERS
    assert loop("ab" * 100_000 + "c") is None
    assert time.process_time() - started < 1, "what is looked at is the end, and once"


@settings(max_examples=150)
@given(st.text(max_size=20), st.text("abc .\n", min_size=1, max_size=12), st.integers(12, 60), st.integers(0, 11))
def test_whatever_is_repeated_often_enough_is_found(before: str, piece: str, times: int, cut: int) -> None:
    """The period found is the shortest there is, so it divides what was repeated."""
    text = (before + piece * times)[: len(before) + len(piece) * times - cut % len(piece)]
    found = loop(text)
    filled = len(piece) * times - len(piece)
    if any(letter.isalpha() for letter in piece) and filled - len(piece) >= repetition.LEAST_CHARACTERS:
        assert found is not None
    if found is not None:
        assert found.times >= repetition.LEAST_TIMES
        assert found.piece
    assert 0.0 <= repeated_share(text) < 1.0
