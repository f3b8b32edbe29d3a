"""How models answer, before their scores: chosen answers side by side, and how all of them end."""

from __future__ import annotations

import polars as pl

from nift_assets.benchmarks import files
from nift_assets.benchmarks import responses as answers
from nift_assets.steps.context import Context
from nift_assets.steps.table import table


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=("mt_bench_answers", "arena_hard_answers"),
    follows=True,
)
def response_endings(
    context: Context, mt_bench_answers: pl.DataFrame, arena_hard_answers: pl.DataFrame
) -> pl.DataFrame:
    return answers.endings({"mt_bench": mt_bench_answers, "arena_hard": arena_hard_answers})


@table(
    group="scores",
    kinds={"python", "polars"},
    inputs=("arena_hard_answers",),
    rows=lambda study, key, table: study.examples,
    follows=True,
)
def response_examples(context: Context, arena_hard_answers: pl.DataFrame) -> pl.DataFrame:
    asked = files.rows(context.study.benchmark("arena_hard"), "question.jsonl") if arena_hard_answers.height else []
    questions = {row["question_id"]: row["turns"][0]["content"] for row in asked}
    return answers.examples(context.study.examples, questions, arena_hard_answers)
