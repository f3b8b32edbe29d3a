"""MT-Bench: what the judge is asked about an answer, and the rating read from what it says.

The rules are those of FastChat's `llm_judge`; the judge's prompts are read from the benchmark's own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.benchmarks import files, verdicts
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Benchmark, Judge

# Categories whose answers are judged beside a reference answer.
WITH_REFERENCE = ("math", "reasoning", "coding")
REFERENCES = "gpt-4.jsonl"


def requests(benchmark: Benchmark, judge: Judge, answers: pl.DataFrame) -> list[Request]:
    """One request per answer row (question × run × turn); the second turn is judged with the first before it."""
    questions = {q["question_id"]: q for q in files.rows(benchmark, "question.jsonl")}
    prompts = {p["name"]: p for p in files.rows(benchmark, "judge_prompts.jsonl")}
    references = {
        r["question_id"]: r["choices"][0]["turns"] for r in files.rows(benchmark, "reference_answer", REFERENCES)
    }
    first_turns = {
        (row["question_id"], row["run"]): row["answer"]
        for row in answers.filter(pl.col("turn") == 1).iter_rows(named=True)
    }
    return [
        _request(
            judge,
            prompts,
            questions[row["question_id"]],
            [first_turns[row["question_id"], row["run"]], row["answer"]],
            references.get(row["question_id"], []),
            turn=row["turn"],
            run=row["run"],
        )
        for row in answers.iter_rows(named=True)
    ]


def judgments(
    answers: pl.DataFrame, requests: Sequence[Request], judged: Sequence[Answer], judge: Judge
) -> pl.DataFrame:
    """One row per answer row with the judge's rating, null where it gave none that counts."""
    told = [verdicts.rated(a.text, answers=said, prompt=_told(r)) for said, r, a in _judged(answers, requests, judged)]
    return answers.select("model", "question_id", "category", "run", "turn").with_columns(
        pl.lit(judge.name).alias("judge"),
        pl.Series("status", [a.status for a in judged], dtype=pl.String),
        pl.Series("judgment", [a.text for a in judged], dtype=pl.String),
        pl.Series("rating", [t.rating for t in told], dtype=pl.Float64),
        pl.Series("reading", [t.reading for t in told], dtype=pl.String),
        pl.Series("published_rating", [rating(a.text) for a in judged], dtype=pl.Float64),
        pl.Series("request_key", [a.key for a in judged], dtype=pl.String),
    )


def rating(judgment: str) -> float | None:
    """The rating as FastChat reads it, whoever wrote it: the first number in double brackets, else in single ones.

    FastChat stores -1 where this says None.
    """
    found = verdicts.RATING.search(judgment) or verdicts.BARE_RATING.search(judgment)
    return float(found[1]) if found else None


def _judged(
    answers: pl.DataFrame, requests: Sequence[Request], judged: Sequence[Answer]
) -> Iterator[tuple[tuple[str, ...], Request, Answer]]:
    """With each judgment the texts the candidate wrote in what the judge was shown."""
    turns: dict[tuple[Any, int], tuple[str, ...]] = {}
    for row in answers.sort("turn").iter_rows(named=True):
        place = row["question_id"], row["run"]
        turns[place] = (*turns.get(place, ()), row["answer"])
    for row, request, answer in zip(answers.iter_rows(named=True), requests, judged, strict=True):
        yield turns[row["question_id"], row["run"]], request, answer


def _told(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def _request(
    judge: Judge,
    prompts: Mapping[str, Mapping[str, Any]],
    question: Mapping[str, Any],
    turns: Sequence[str],
    reference: Sequence[str],
    *,
    turn: int,
    run: int,
) -> Request:
    with_reference = question["category"] in WITH_REFERENCE
    name = ("single-math-v1" if with_reference else "single-v1") + ("-multi-turn" if turn == 2 else "")
    values = {
        "question": question["turns"][0],
        "answer": turns[0],
        **{f"question_{i}": text for i, text in enumerate(question["turns"], start=1)},
        **{f"answer_{i}": text for i, text in enumerate(turns, start=1)},
        **{f"ref_answer_{i}": text for i, text in enumerate(reference if with_reference else (), start=1)},
    }
    system, user = prompts[name]["system_prompt"], prompts[name]["prompt_template"].format(**values)
    return providers.request(judge, user, system=system, draw=run)
