"""How the models' answers end and repeat themselves: of all of them in numbers, of chosen ones side by side (Tables 10
to 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from nift_assets.benchmarks.scoring import repetition
from nift_assets.rows import Example

ENDINGS: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "benchmark": pl.String,
    "answers": pl.Int64,
    "ended": pl.Float64,
    "empty": pl.Float64,
    "looping": pl.Float64,
    "repeated": pl.Float64,
    "tokens_mean": pl.Float64,
    "tokens_most": pl.Int64,
}
SIDE: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "answer": pl.String,
    "tokens": pl.Int64,
    "stopped": pl.String,
    "repeated": pl.Float64,
    "loop": pl.String,
    "loop_times": pl.Float64,
}
SIDES = ("before", "after")
EXAMPLES: dict[str, type[pl.DataType]] = {
    "name": pl.String,
    "table": pl.String,
    "question_id": pl.String,
    "question": pl.String,
    **{side if name == "model" else f"{side}_{name}": kind for side in SIDES for name, kind in SIDE.items()},
}


def endings(answers: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """One row per model and benchmark: how many percent of its answers ended by themselves, are empty, or loop, and how
    many percent of its text stood there before; the share of each answer counts alike."""
    rows = [
        _ending(str(model), benchmark, mine)
        for benchmark, frame in answers.items()
        for (model,), mine in frame.group_by("model", maintain_order=True)
    ]
    return pl.DataFrame(rows, schema=ENDINGS, orient="row")


def examples(chosen: Sequence[Example], questions: Mapping[str, str], arena_hard_answers: pl.DataFrame) -> pl.DataFrame:
    """One row per chosen question: what it asks, and what both models answer; null for what is not there yet.

    ValueError for a question that is none of `questions`, unless there are none at all.
    """
    for example in chosen:
        if questions and example.question_id not in questions:
            raise ValueError(
                f"example {example.name!r} asks {example.question_id!r}, which is no question of Arena-Hard's file; "
                "name one by its question_id"
            )
    wanted = {(model, example.question_id) for example in chosen for model in (example.before, example.after)}
    pairs = pl.DataFrame(sorted(wanted), schema={"model": pl.String, "question_id": pl.String}, orient="row")
    answers = arena_hard_answers.join(pairs, on=["model", "question_id"], how="semi")
    rows_by_question = {(row["model"], row["question_id"]): row for row in answers.iter_rows(named=True)}
    rows = []
    for example in chosen:
        row: dict[str, Any] = {"name": example.name, "table": example.table, "question_id": example.question_id}
        row["question"] = questions.get(example.question_id)
        for side, model in zip(SIDES, (example.before, example.after), strict=True):
            row[side] = model
            answer = rows_by_question.get((model, example.question_id))
            row |= {f"{side}_{name}": value for name, value in _measured(answer).items()} if answer else {}
        rows.append(row)
    return pl.DataFrame(rows, schema=EXAMPLES, orient="row")


def _ending(model: str, benchmark: str, answers: pl.DataFrame) -> dict[str, Any]:
    texts = answers["answer"].to_list()
    count = answers.height
    return {
        "model": model,
        "benchmark": benchmark,
        "answers": count,
        "ended": 100 * answers.filter(pl.col("stopped") != "length").height / count,
        "empty": 100 * sum(not text.strip() for text in texts) / count,
        "looping": 100 * sum(repetition.loop(text) is not None for text in texts) / count,
        "repeated": 100 * sum(map(repetition.repeated_share, texts)) / count,
        "tokens_mean": answers["tokens"].mean(),
        "tokens_most": answers["tokens"].max(),
    }


def _measured(answer: Mapping[str, Any]) -> dict[str, Any]:
    loop = repetition.loop(answer["answer"])
    return {
        "answer": answer["answer"],
        "tokens": answer["tokens"],
        "stopped": answer["stopped"],
        "repeated": 100 * repetition.repeated_share(answer["answer"]),
        "loop": loop.piece if loop else None,
        "loop_times": loop.times if loop else None,
    }
