"""Drops a document that repeats thirteen words in a row of a benchmark's question.

Why: a model that was trained on the questions is not measured by them. Thirteen words are the usual length (GPT-3,
appendix C); a question of 8 to 12 words counts as a whole, and a shorter one cannot be told from ordinary speech. The
text is the whole training text, first half and completion. Example: an article that quotes "the letter, of about 150
words, that the keeper leaves on the table for whoever takes over the post" from a question.

Switched on without being named by a teacher or a training set it only reports, with a warning among the checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from nift_assets import benchmark_files

if TYPE_CHECKING:
    from nift_assets.studies.study import Benchmark

WORD = re.compile(r"[^\W_]+")
FEWEST = 8


def removals(candidates: pl.DataFrame, *, benchmarks: Sequence[Benchmark], words: int = 13) -> pl.DataFrame:
    """One row per document that shares `words` words in a row with a question, with the first question it shares."""
    questions = grams(benchmarks, words)
    lengths = sorted({len(gram) for gram in questions}, reverse=True)
    texts = candidates["first_half"] + candidates["completion"]
    found = [
        (document_id, f"repeats {hit}")
        for document_id, text in zip(candidates["document_id"], texts, strict=True)
        if (hit := _first_hit(text, questions, lengths))
    ]
    return pl.DataFrame(found, schema={"document_id": pl.String, "reason": pl.String}, orient="row")


def grams(benchmarks: Sequence[Benchmark], words: int) -> dict[tuple[str, ...], str]:
    """The question each run of so many words is from; a question of fewer, but at least 8, is one run."""
    found: dict[tuple[str, ...], str] = {}
    for benchmark in benchmarks:
        for name, text in questions(benchmark):
            said = _words(text)
            if len(said) >= min(FEWEST, words):
                for start in range(max(1, len(said) - words + 1)):
                    found.setdefault(tuple(said[start : start + words]), f"{benchmark.name} {name}")
    return found


def questions(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    """Every text a model is asked in a benchmark, with the name of its question; of a task all texts of its rows."""
    match benchmark.name:
        case "mt_bench":
            for row in benchmark_files.rows(benchmark, "question.jsonl"):
                yield from ((str(row["question_id"]), turn) for turn in row["turns"])
        case "arena_hard":
            for row in benchmark_files.rows(benchmark, "question.jsonl"):
                yield from ((str(row["question_id"]), turn["content"]) for turn in row["turns"])
        case "ifeval":
            for row in benchmark_files.rows(benchmark, "input_data.jsonl"):
                yield str(row["key"]), row["prompt"]
        case "open_llm_leaderboard":
            for path in sorted(benchmark_files.path_of(benchmark).glob("*.jsonl")):
                for number, row in enumerate(benchmark_files.rows(benchmark, path.name), start=1):
                    yield from ((f"{path.stem} {number}", text) for text in row.values() if isinstance(text, str))


def _first_hit(text: str, questions: Mapping[tuple[str, ...], str], lengths: Sequence[int]) -> str | None:
    said = _words(text)
    for length in lengths:
        for start in range(len(said) - length + 1):
            if hit := questions.get(tuple(said[start : start + length])):
                return hit
    return None


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
