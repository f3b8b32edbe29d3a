"""Documents to try sampling and cutting on: hostile ones made up from a seed, and real ones where there are any."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

WHITE_SPACE = [chr(code) for code in range(0x3001) if chr(code).isspace()]
# Near misses of white space, bytes that end a text elsewhere, signs of several scripts, marks that join or turn round.
PIECES = [
    *("a", "Word", "naïve", "–", "«", "字", "かな", "한글", "ไทย", "עברית", "عربي", "𝕏", "😀", "👩\u200d👩\u200d👧"),
    *("\x00", "\x08", "\x0e", "\x1b", "\x7f", "\x84", "\u180e", "\u200b", "\u2060", "\ufeff", "\u202e", "\u2010"),
    *("\u3001", "\u1681", "\xa1", "e\u0301", "\U0010ffff"),
]


def hostile(number: int, *, seed: int) -> Iterator[str]:
    """So many made-up documents: of no word, of one, of a few and of many, of every white space among every script."""
    chance = random.Random(seed)
    for _ in range(number):
        share_of_white = chance.choice([0.0, 0.1, 0.3, 0.7])
        length = chance.choice([2, 4, 8, 15, 30, 60]) if chance.random() < 0.97 else chance.choice([0, 1, 500])
        yield "".join(chance.choice(WHITE_SPACE if chance.random() < share_of_white else PIECES) for _ in range(length))


def shared_documents() -> list[Path]:
    """Files of real documents, in `documents` of the folder NIFT_SHARED_DATA names or of `shared/data` beside us."""
    named = os.environ.get("NIFT_SHARED_DATA")
    beside = Path(__file__).parent.parent.parent.parent / "shared" / "data"
    found = sorted((Path(named) if named else beside).glob("documents/*.parquet"))
    if not found:
        pytest.skip("no real documents here: NIFT_SHARED_DATA names no folder with documents/*.parquet in it")
    return found
