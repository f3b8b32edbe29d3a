"""Thoughts in front of an answer are told apart from it, however often a model thought."""

from __future__ import annotations

import pytest

from nift_assets.protocol import thoughts


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("Seven.", None, "Seven."),
        ("<think>So?</think>\n\nSeven.", "So?", "Seven."),
        ("so it is</think> Seven.", "so it is", " Seven."),
        ("<think>a</think>\n<think>b</think>\nSeven.", "a\n\nb", "Seven."),
        ("a</think>b</think>Seven.", "a\n\nb", "Seven."),
        ("<think></think>Seven.", None, "Seven."),
        ("<think>without an end", "without an end", ""),
        ("It says <think> in the text.", None, "It says <think> in the text."),
    ],
)
def test_what_a_model_thought_is_no_part_of_its_answer(text: str, thought: str | None, answer: str) -> None:
    assert thoughts.apart(text) == (thought, answer)
