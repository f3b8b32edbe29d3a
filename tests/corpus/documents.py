"""Documents to try sampling and cutting on, made up from a seed: of every script, white space and near miss of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

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
