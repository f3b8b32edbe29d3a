"""What a model thought before it answered, told apart from the answer in a text that holds both."""

from __future__ import annotations

import re

# What opens thoughts and what closes them, as models write it where their server leaves it in the text.
MARKS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"))
# A chat template puts line breaks between the thoughts and the answer; a space in front belongs to the answer.
BREAKS = re.compile(r"(?:[ \t]*[\r\n]+)*")


def apart(text: str) -> tuple[str | None, str]:
    """The thoughts in front of an answer, None without any, and the answer.

    Thoughts are what stands between the marks at the very beginning, and everything before a mark that closes what no
    mark has opened: the template has opened it then. Thoughts that were never closed are all there is. A model may
    think several times before it answers.
    """
    thoughts: list[str] = []
    while (taken := _first(text)) is not None:
        thought, text = taken
        thoughts += [thought] if thought else []
    return "\n\n".join(thoughts) or None, text


def _first(text: str) -> tuple[str, str] | None:
    """The first thoughts of a text and what comes behind them; None where it begins with none."""
    begins = text.lstrip()
    for opens, closes in MARKS:
        if begins.startswith(opens):
            thoughts, mark, rest = begins[len(opens) :].partition(closes)
        else:
            thoughts, mark, rest = text.partition(closes)
            if not mark or opens in thoughts:
                continue
        return thoughts.strip(), rest[BREAKS.match(rest).end() :] if mark else ""  # type: ignore[union-attr]
    return None
