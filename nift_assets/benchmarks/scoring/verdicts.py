"""What a judge's text is worth: which of its labels are the judge's own, and how each text was read.

An answer is data. A label that stands in the candidate's answer is nobody's verdict, even where the judge repeats it
(promise P11; arXiv 2410.07137): who wrote it cannot be told. Nor is one that is copied out of the judge's own prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ReadingKind = Literal[
    "verdict", "single_brackets", "several", "out_of_range", "unknown_label", "repeated", "none", "error", "empty"
]

# In the order in which tables show them: what each is, and what it counts as.
READINGS: dict[ReadingKind, str] = {
    "verdict": "the judge's one label: counts",
    "single_brackets": "a rating in single brackets alone: counts, as in FastChat",
    "several": "different labels: MT-Bench counts the first, as FastChat does; Arena-Hard none of them",
    "out_of_range": "a rating below 1 or above 10: does not count",
    "unknown_label": "a label that is none of the five, A>>A or A<B: does not count",
    "repeated": "a label that stands in the candidate's answer, or is copied out of the prompt: does not count",
    "none": "no label: does not count",
    "error": "the call failed, $ERROR$: does not count",
    "empty": "nothing came: does not count",
}

# What FastChat and arena-hard-auto store where every try of a call failed.
FAILED = "$ERROR$"
# So many characters before a label, the same as in the prompt, are a copy of it: `Rating: [[5]]` alone is no copy.
COPIED = 24
RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
BARE_RATING = re.compile(r"\[(\d+\.?\d*)\]")
VERDICT = re.compile(r"\[\[([AB<>=]+)\]\]")
BARE_VERDICT = re.compile(r"\[([AB<>=]+)\]")
LOWEST, HIGHEST = 1.0, 10.0
LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
# What the tool of 2025 takes for these.
MIRRORED = {"A<<B": "B>>A", "A<B": "B>A", "B=A": "A=B", "B<A": "A>B", "B<<A": "A>>B"}


@dataclass(frozen=True)
class RatingReading:
    """A rating from 1 to 10, None where there is none that counts, and how the text was read."""

    rating: float | None
    reading: ReadingKind


@dataclass(frozen=True)
class RulingReading:
    """One of the five labels, None where there is none that counts, and how the text was read."""

    verdict: str | None
    reading: ReadingKind


def read_rating(judgment: str | None, *, answers: Sequence[str] = (), prompt: str = "") -> RatingReading:
    """The rating in an MT-Bench judgment: the first number in double brackets, else in single ones, that is its own."""
    if (unread := _unread(judgment)) or judgment is None:
        return RatingReading(None, unread or "empty")
    pattern = RATING if RATING.search(judgment) else BARE_RATING
    labels, copied = own_labels(pattern, judgment, answers, prompt)
    if not labels:
        return RatingReading(None, "repeated" if copied else "none")
    value = float(labels[0])
    if not LOWEST <= value <= HIGHEST:
        return RatingReading(None, "out_of_range")
    if pattern is BARE_RATING:
        return RatingReading(value, "single_brackets")
    return RatingReading(value, "several" if len({float(label) for label in labels}) > 1 else "verdict")


def read_ruling(judgment: str | None, *, answers: Sequence[str] = (), prompt: str = "") -> RulingReading:
    """The verdict in an Arena-Hard judgment: its one label in double brackets."""
    if (unread := _unread(judgment)) or judgment is None:
        return RulingReading(None, unread or "empty")
    labels, copied = own_labels(VERDICT, judgment, answers, prompt)
    if not labels:
        return RulingReading(None, "repeated" if copied else "none")
    if len(set(labels)) > 1:
        return RulingReading(None, "several")
    return RulingReading(labels[0], "verdict") if labels[0] in LABELS else RulingReading(None, "unknown_label")


def read_last_ruling(judgment: str | None, *, answers: Sequence[str] = (), prompt: str = "") -> RulingReading:
    """The verdict as arena-hard-auto reads it since 2025: the last label, in double brackets or else in single ones,
    in capitals or not, also one that is written the other way round."""
    if (unread := _unread(judgment)) or judgment is None:
        return RulingReading(None, unread or "empty")
    text = judgment.upper()
    pattern = VERDICT if VERDICT.search(text) else BARE_VERDICT
    labels, copied = own_labels(pattern, text, [answer.upper() for answer in answers], prompt.upper())
    if not labels:
        return RulingReading(None, "repeated" if copied else "none")
    label = MIRRORED.get(labels[-1], labels[-1])
    return RulingReading(label, "verdict") if label in LABELS else RulingReading(None, "unknown_label")


def own_labels(
    pattern: re.Pattern[str], judgment: str, answers: Sequence[str] = (), prompt: str = ""
) -> tuple[list[str], int]:
    """The labels of a judgment that are the judge's own, in order, and how many others there are."""
    text, asked = " ".join(judgment.split()), " ".join(prompt.split())
    labels, copied = [], 0
    for match in pattern.finditer(text):
        start = match.start() - COPIED
        from_answer = any(match[0] in answer for answer in answers)
        if from_answer or (start >= 0 and text[start : match.end()] in asked):
            copied += 1
        else:
            labels.append(match[1])
    return labels, copied


def holds_label(text: str) -> bool:
    """Whether an answer holds what a judge's verdict looks like: in double brackets a number or a label."""
    return bool(RATING.search(text) or VERDICT.search(text))


def _unread(judgment: str | None) -> ReadingKind | None:
    if judgment is None or not judgment.strip():
        return "empty"
    return "error" if judgment.strip() == FAILED else None
