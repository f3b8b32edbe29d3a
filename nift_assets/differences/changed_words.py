"""What has changed between two texts, word by word, as a person reads it in a line."""

from __future__ import annotations

import difflib
import re

from nift_assets.writing_systems import UNSPACED_RANGES

# White space belongs to the word behind it, so that the pieces joined are the text. Of a script without spaces each
# sign is a word.
PIECE = re.compile(rf"\s*(?:[{UNSPACED_RANGES}]|(?:(?![{UNSPACED_RANGES}])\S)+)|\s+")
# Two texts that have nothing to do with each other take the square of their words to compare.
MOST_WORDS = 300
CONTEXT = 4
MOST_CHANGES = 3
# Texts that have less than this in common are shown as one change.
ALIKE = 0.5
LONGEST = 120


def changed_words(before: str, after: str) -> str:
    """The first words that differ, `[-gone-]{+come+}`, on one line with some words around them; what is left out is an
    ellipsis. Compared are some hundred words from the first difference on."""
    old, new = PIECE.findall(before), PIECE.findall(after)
    start = max(0, _alike(old, new) - CONTEXT)
    end = start + MOST_WORDS
    codes = _changes(old[start:end], new[start:end])
    last = [place for place, code in enumerate(codes) if code[0] != "equal"][:MOST_CHANGES][-1:]
    shown = codes[: last[0] + 2] if last else []
    parts = ["… "] * (start > 0)
    for place, (kind, old_from, old_to, new_from, new_to) in enumerate(shown):
        gone, come = old[start + old_from : start + old_to], new[start + new_from : start + new_to]
        if kind == "equal":
            parts.append(_around(gone, begins=place == 0, ends=place == len(shown) - 1))
        else:
            parts += [_marked("[-{}-]", gone), _marked("{{+{}+}}", come)]
    parts += [" …"] * (len(codes) > len(shown) or max(len(old), len(new)) > end)
    return " ".join("".join(parts).split())


def _changes(old: list[str], new: list[str]) -> list[tuple[str, int, int, int, int]]:
    """The stretches that are alike and those that differ, as difflib gives them."""
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    if matcher.ratio() >= ALIKE:
        return list(matcher.get_opcodes())
    same = _alike(old, new)
    changed = ("replace", same, len(old), same, len(new))
    return [("equal", 0, same, 0, same), changed] if same else [changed]


def _alike(old: list[str], new: list[str]) -> int:
    """How many words the two begin with alike."""
    differs = (place for place, (one, other) in enumerate(zip(old, new, strict=False)) if one != other)
    return next(differs, min(len(old), len(new)))


def _around(words: list[str], *, begins: bool, ends: bool) -> str:
    """The words of a stretch that has not changed which are next to what has."""
    if len(words) <= CONTEXT * (1 if begins or ends else 2):
        return "".join(words)
    first, last = "".join(words[:CONTEXT]), "".join(words[-CONTEXT:])
    return f"… {last}" if begins else f"{first} …" if ends else f"{first} … {last}"


def _marked(mark: str, words: list[str]) -> str:
    """Words in their mark, with the space before them outside of it."""
    text = "".join(words)
    return " " * text[0].isspace() + mark.format(_short(text.strip())) if words else ""


def _short(text: str) -> str:
    """The beginning and the end of a long stretch."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
