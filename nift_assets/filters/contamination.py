"""Drops a document that repeats thirteen words in a row of a benchmark's question.

Why: a model that was trained on the questions is not measured by them. Thirteen words are the usual length (GPT-3,
appendix C); a question of 8 to 12 words counts as a whole, and a shorter one cannot be told from ordinary speech. The
text is the whole training text, first half and completion. Example: an article that quotes "the letter, of about 150
words, that the keeper leaves on the table for whoever takes over the post" from a question.

Switched on without being named by a teacher or a training set it only reports, with a warning among the checks. A
benchmark whose questions cannot be had, a task whose data is on the Hub for one, is not looked for, and is named and
counted in the table's metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from nift_assets.benchmarks import files
from nift_assets.filters import Removed

if TYPE_CHECKING:
    from nift_assets.rows import Benchmark

WORD = re.compile(r"[^\W_]+")
FEWEST = 8


def removals(candidates: pl.DataFrame, *, benchmarks: Sequence[Benchmark], words: int = 13) -> Removed:
    """One row per document that shares `words` words in a row with a question, with the first question it shares."""
    asked, missing = read(benchmarks)
    questions = grams(asked, words)
    lengths = sorted({len(gram) for gram in questions}, reverse=True)
    texts = candidates["first_half"] + candidates["completion"]
    found = [
        (document_id, f"repeats {hit}")
        for document_id, text in zip(candidates["document_id"], texts, strict=True)
        if (hit := _first_hit(text, questions, lengths))
    ]
    return Removed(
        pl.DataFrame(found, schema={"document_id": pl.String, "reason": pl.String}, orient="row"),
        {"benchmarks_looked_for": len(asked), "benchmarks_missing": len(missing)}
        | {f"missing {name}": f"{reason}; materialize again when it is there" for name, reason in missing.items()},
    )


def read(benchmarks: Sequence[Benchmark]) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """What each benchmark asks, the Hub's tasks each for itself; and of those that cannot be read the reason."""
    asked, missing = {}, {}
    for benchmark in benchmarks:
        on_the_hub = benchmark.location == files.HUB
        for part in [replace(benchmark, tasks=(task,)) for task in benchmark.tasks] if on_the_hub else [benchmark]:
            name = f"{benchmark.name} {part.tasks[0].name}" if on_the_hub else benchmark.name
            try:
                asked[name] = [(f"{benchmark.name} {question}", text) for question, text in questions(part)]
            except ValueError as error:
                missing[name] = str(error)
    return asked, missing


def grams(asked: Mapping[str, Sequence[tuple[str, str]]], words: int) -> dict[tuple[str, ...], str]:
    """The question each run of so many words is from; a question of fewer, but at least 8, is one run."""
    found: dict[tuple[str, ...], str] = {}
    for name, text in chain(*asked.values()):
        said = _words(text)
        if len(said) >= min(FEWEST, words):
            for start in range(max(1, len(said) - words + 1)):
                found.setdefault(tuple(said[start : start + words]), name)
    return found


def questions(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    """Every text a model is asked in a benchmark, with the name of its question; of a task all texts of its rows."""
    match benchmark.name:
        case "mt_bench":
            for row in files.rows(benchmark, "question.jsonl"):
                yield from ((str(row["question_id"]), turn) for turn in row["turns"])
        case "arena_hard":
            for row in files.rows(benchmark, "question.jsonl"):
                yield from ((str(row["question_id"]), turn["content"]) for turn in row["turns"])
        case "ifeval":
            for row in files.rows(benchmark, "input_data.jsonl"):
                yield str(row["key"]), row["prompt"]
        case "open_llm_leaderboard":
            for name, row in files.task_rows(benchmark):
                yield from ((name, text) for text in _texts(row))


def _texts(value: Any) -> Iterator[str]:
    """Every text of a row: of its columns, and of the lists and structs in them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _first_hit(text: str, questions: Mapping[tuple[str, ...], str], lengths: Sequence[int]) -> str | None:
    said = _words(text)
    for length in lengths:
        for start in range(len(said) - length + 1):
            if hit := questions.get(tuple(said[start : start + length])):
                return hit
    return None


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
