"""What a model thought before it answered, told apart from the answer in a text that holds both."""

from __future__ import annotations

import re
from typing import Any

# What opens thoughts and what closes them, as models write it where their server leaves it in the text.
MARKS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"))
# What the kinds of parts that hold thoughts begin with, and where in them the thoughts are.
THINKING = ("thinking", "reasoning")
THOUGHTS = ("thinking", "reasoning", "text", "summary", "content")
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


def of_parts(content: Any) -> tuple[str | None, str]:
    """The thoughts, None without any, and the text of a message whose content is a text or parts of either kind.

    Anthropic's thinking is a text, Mistral's a list of parts; OpenRouter's details are `reasoning.text` and
    `reasoning.summary`. A part of an unknown kind that has a text is text: no answer is lost for what it is called.
    """
    if isinstance(content, str):
        return None, content
    thoughts, texts = [], []
    for part in content if isinstance(content, list) else (content,):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and str(part.get("type")).startswith(THINKING):
            thoughts += [thought for name in THOUGHTS if (thought := _joined(part.get(name)))][:1]
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "".join(thoughts) or None, "".join(texts)


def _joined(content: Any) -> str:
    within, text = of_parts(content)
    return (within or "") + text


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
