"""Drops a document that repeats thirteen words in a row of a benchmark's question.

Why: a model that was trained on the questions is not measured by them. Thirteen words are the usual length (GPT-3,
appendix C); a question of 8 to 12 words counts as a whole, and a shorter one cannot be told from ordinary speech. Of a
script without spaces between words each sign is one. The text is the whole training text, first half and completion,
as a person reads it across the cut. Example: an article that quotes "the letter, of about 150
words, that the keeper leaves on the table for whoever takes over the post" from a question.

Switched on without being named by a teacher or a training set it only reports, with a warning among the checks. A
benchmark whose questions cannot be had, a task whose data is on the Hub for one, is not looked for, and is named and
counted in the table's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import polars as pl

from nift_assets import writing_systems
from nift_assets.benchmarks import load
from nift_assets.benchmarks.scoring.files import HUB
from nift_assets.filters import Removals

if TYPE_CHECKING:
    from nift_assets.rows import Benchmark

ROW_BY_ROW = True
FEWEST = 8


def removals(candidates: pl.DataFrame, *, benchmarks: Sequence[Benchmark], words: int = 13) -> Removals:
    """One row per document that shares `words` words in a row with a question, with the first question it shares."""
    asked, missing = read(benchmarks)
    questions = grams(asked, words)
    lengths = sorted({len(gram) for gram in questions}, reverse=True)
    texts = [writing_systems.joined(*halves) for halves in candidates.select("first_half", "completion").iter_rows()]
    hits = [
        (document_id, f"repeats {hit}")
        for document_id, text in zip(candidates["document_id"], texts, strict=True)
        if (hit := _first_hit(text, questions, lengths))
    ]
    return Removals(
        pl.DataFrame(hits, schema={"document_id": pl.String, "reason": pl.String}, orient="row"),
        {"benchmarks_looked_for": len(asked), "benchmarks_missing": len(missing)}
        | {f"missing {name}": f"{reason}; materialize again when it is there" for name, reason in missing.items()},
    )


def read(benchmarks: Sequence[Benchmark]) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """What each benchmark asks, the Hub's tasks each for itself; and of those that cannot be read the reason."""
    asked, missing = {}, {}
    for benchmark in benchmarks:
        on_the_hub = benchmark.location == HUB
        for part in [replace(benchmark, tasks=(task,)) for task in benchmark.tasks] if on_the_hub else [benchmark]:
            name = f"{benchmark.name} {part.tasks[0].name}" if on_the_hub else benchmark.name
            try:
                asked[name] = [(f"{benchmark.name} {question}", text) for question, text in questions(part)]
            except ValueError as error:
                missing[name] = str(error)
    return asked, missing


def questions(benchmark: Benchmark) -> list[tuple[str, str]]:
    """Every text a model is asked in a benchmark, with the name of its question; ValueError if there is none."""
    if not (asked := list(load(benchmark.name).questions(benchmark))):
        raise ValueError(f"{benchmark.location} has no question of {benchmark.name}; put its published files there")
    return asked


def grams(asked: Mapping[str, Sequence[tuple[str, str]]], words: int) -> dict[tuple[str, ...], str]:
    """The question each run of so many words is from; a question of fewer, but at least 8, is one run."""
    names_by_gram: dict[tuple[str, ...], str] = {}
    for name, text in chain(*asked.values()):
        words_of_text = _words(text)
        if len(words_of_text) >= min(FEWEST, words):
            for start in range(max(1, len(words_of_text) - words + 1)):
                names_by_gram.setdefault(tuple(words_of_text[start : start + words]), name)
    return names_by_gram


def _first_hit(text: str, questions: Mapping[tuple[str, ...], str], lengths: Sequence[int]) -> str | None:
    words = _words(text)
    for length in lengths:
        for start in range(len(words) - length + 1):
            if hit := questions.get(tuple(words[start : start + length])):
                return hit
    return None


def _words(text: str) -> list[str]:
    return writing_systems.words(text.replace("_", " "))
