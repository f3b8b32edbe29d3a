"""The answers that are judged, as their files or the judge's prompts have them.

Of a text only a mark is kept, so that files are read whatever their size. What the candidate wrote is known from files
of answers or, where none are given, from what the judge was shown.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.benchmarks.scoring import json_lines, verdicts
from nift_assets.benchmarks.scoring.json_lines import JsonObject
from nift_assets.benchmarks.scoring.scores import ALIKE
from nift_assets.protocol import thoughts

# One answer to so large a share of the questions is no answer to them.
MOST_ALIKE = 0.1

HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
CODE = re.compile(r"```[^`]*```")


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """One model's answer to one question: the texts of its turns, and its style as the file states it or as counted."""

    model: str
    question: str
    turns: tuple[str, ...]
    tokens: int | None
    headers: int
    lists: int
    bold: int


@dataclass(frozen=True, slots=True)
class AnswerMark:
    """What is kept of a text: a digest by which equals are found, and whether it holds what a verdict looks like, or
    what the model thought before it answered."""

    digest: bytes
    holds_verdict: bool
    holds_thoughts: bool


class AnswerIndex:
    """The candidates' answers: those in files and, of models without any there, marks of what the judge was shown."""

    def __init__(self, answers: Iterable[ModelAnswer]) -> None:
        self.files = {(answer.model, answer.question): answer for answer in answers}
        self._in_files = {model for model, _ in self.files}
        self._shown: dict[str, dict[tuple[str, int], AnswerMark]] = {}

    def has(self, model: str) -> bool:
        """Whether the files have answers of the model."""
        return model in self._in_files

    def turns(self, model: str, question: str) -> tuple[str, ...]:
        """The answer in the files, none if they lack it."""
        answer = self.files.get((model, question))
        return answer.turns if answer else ()

    def show(self, model: str, question: str, turn: int, text: str) -> None:
        """Notes what a judge was shown as the model's answer."""
        if not self.has(model):
            self._shown.setdefault(model, {})[question, turn] = mark(text)

    def tokens(self, model: str) -> list[int]:
        """How long the model's answers in the files are, where they say so."""
        return [a.tokens for (name, _), a in self.files.items() if name == model and a.tokens is not None]

    def flags(self, model: str) -> dict[str, int]:
        """How many of a model's answers are one text again and again, or hold what looks like a verdict or thoughts."""
        by_turn: dict[int, list[AnswerMark]] = {}
        for turn, answer_mark in self._marks(model):
            by_turn.setdefault(turn, []).append(answer_mark)
        marks = [answer_mark for of_turn in by_turn.values() for answer_mark in of_turn]
        return {
            ALIKE: sum(count_alike(of_turn)[ALIKE] for of_turn in by_turn.values()),
            "answers that hold a verdict": sum(answer_mark.holds_verdict for answer_mark in marks),
            **count_thoughts(marks),
        }

    def _marks(self, model: str) -> Iterator[tuple[int, AnswerMark]]:
        for (_, turn), answer_mark in self._shown.get(model, {}).items():
            yield turn, answer_mark
        for (name, _), answer in self.files.items():
            if name == model:
                yield from enumerate(map(mark, answer.turns), start=1)


def read(paths: Sequence[Path]) -> Iterator[ModelAnswer]:
    """The answers in files of FastChat or arena-hard-auto: turns of text, of `content`, or a list of messages."""
    for _, path, number, row in json_lines.lines(paths):
        question = row.get("question_id", row.get("uid"))
        model = row.get("model_id", row.get("model"))
        if question is None or model is None:
            raise ValueError(f"{path} line {number} is no answer: it lacks question_id or model_id")
        turns = _turns(row)
        if turns is None:
            raise ValueError(
                f"{path} line {number} has neither choices with turns nor messages; give a file of answers"
            )
        texts = tuple(json_lines.content_of(turn) or "" for turn in turns)
        style = next((s for name in ("conv_metadata", "metadata") if isinstance(s := row.get(name), dict)), {})
        first = turns[0] if turns and isinstance(turns[0], dict) else {}
        counted = style_of("\n".join(texts))
        yield ModelAnswer(
            model=str(model),
            question=json_lines.identity(question),
            turns=texts,
            tokens=_count(style.get("token_len", first.get("token_len"))),
            headers=_total(style.get("header_count"), counted[0]),
            lists=_total(style.get("list_count"), counted[1]),
            bold=_total(style.get("bold_count"), counted[2]),
        )


def style_of(text: str) -> tuple[int, int, int]:
    """How many headers, list items and bold passages a text in Markdown has, outside its blocks of code."""
    prose = CODE.sub("", text)
    return len(HEADER.findall(prose)), len(LIST_ITEM.findall(prose)), len(BOLD.findall(prose))


def mark(text: str) -> AnswerMark:
    """What is kept of a text, spaces around it aside."""
    return AnswerMark(digest_of(text.strip()), verdicts.holds_label(text), thoughts.apart(text)[1] != text)


def count_alike(marks: Sequence[AnswerMark]) -> dict[str, int]:
    """How many texts are one that is given again and again."""
    number = Counter(answer_mark.digest for answer_mark in marks)
    most = max(1, MOST_ALIKE * len(marks))
    return {ALIKE: sum(times for times in number.values() if times > most)}


def alike_in(answers: pl.DataFrame) -> dict[str, int]:
    """How many of a model's answers in a table are one text again and again; those of each turn and run by themselves,
    since a model that does not draw says the same in every run."""
    apart = [name for name in ("run", "turn") if name in answers.columns]
    groups = answers.partition_by(apart) if apart else [answers]
    return {ALIKE: sum(count_alike([mark(text) for text in group["answer"]])[ALIKE] for group in groups)}


def count_thoughts(marks: Sequence[AnswerMark]) -> dict[str, int]:
    """How many texts begin with what the model thought, `<think>…</think>`, which was judged with the answer."""
    return {"answers that hold thoughts": sum(answer_mark.holds_thoughts for answer_mark in marks)}


def digest_of(text: str) -> bytes:
    """By which equal texts are known."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _turns(row: JsonObject) -> list[Any] | None:
    """The turns of an answer: of its first choice, or what the assistant says in its messages."""
    choices = row.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        turns = choices[0].get("turns")
        return turns if isinstance(turns, list) else None
    if isinstance(messages := row.get("messages"), list):
        return [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "assistant"]
    return None


def _total(value: Any, counted: int) -> int:
    """A count as arena-hard-auto states it, which is a number or one number per kind; else as it was counted."""
    numbers = [_count(each) for each in (value.values() if isinstance(value, Mapping) else (value,))]
    known_numbers = [number for number in numbers if number is not None]
    return sum(known_numbers) if len(known_numbers) == len(numbers) else counted


def _count(value: Any) -> int | None:
    number = json_lines.integer_of(value)
    return None if number is None or number < 0 else number
