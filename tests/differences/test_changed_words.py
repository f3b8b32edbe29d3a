"""What has changed between two texts, on one line."""

from __future__ import annotations

import time

import pytest

from nift_assets.differences.changed_words import LONGEST, changed_words

SEA = "The old man went to the sea and came back with a big fish and ate it alone at night while it was raining"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (
            SEA,
            SEA.replace("big", "small").replace("night", "noon"),
            "… came back with a [-big-] {+small+} fish and ate it alone at [-night-] {+noon+} while it was raining",
        ),
        (SEA, SEA + " hard", "… while it was raining {+hard+}"),
        ("", "all of it", "{+all of it+}"),
        ("all of it", "", "[-all of it-]"),
        ("one two", "three four", "[-one two-]{+three four+}"),
        ("我爱你们大家好朋友", "我恨你们大家好朋友", "我[-爱-]{+恨+}你们大家 …"),
        ("a line\n\nand more", "a line\n\nand less", "a line and [-more-] {+less+}"),
    ],
)
def test_words_that_differ_stand_in_marks_among_their_neighbours(before: str, after: str, shown: str) -> None:
    assert changed_words(before, after) == shown


def test_long_texts_without_anything_in_common_are_one_short_change_at_once() -> None:
    began = time.process_time()
    shown = changed_words("a b c " * 20_000, "x y z " * 20_000)
    assert time.process_time() - began < 5
    assert len(shown) < 3 * LONGEST
