"""Arena-Hard v0.1: two games per question against a baseline with the places swapped, and the verdict of each.

The rules are those of arena-hard-auto; the judge's prompts are read from the benchmark's `judge_config.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl
import yaml

from nift_assets import benchmark_files, providers
from nift_assets.ledger import Answer, Request
from nift_assets.studies.study import Benchmark, Judge

VERDICT = re.compile(r"\[\[([AB<>=]+)\]\]")
GAMES = (1, 2)

# What a verdict says about the answer in place B, and how often its battle counts: a clear win three times.
OUTCOMES = {"A>>B": (0.0, 3), "A>B": (0.0, 1), "A=B": (0.5, 1), "B>A": (1.0, 1), "B>>A": (1.0, 3)}


def games(benchmark: Benchmark, answers: pl.DataFrame) -> pl.DataFrame:
    """One row per question × game with the answers in places A and B; the model stands in place B in game 1."""
    assert benchmark.baseline is not None
    baseline = {
        row["question_id"]: row["choices"][0]["turns"][0]["content"]
        for row in benchmark_files.rows(benchmark, "model_answer", f"{benchmark.baseline}.jsonl")
    }
    rows = [
        (model, question, game, *((baseline[question], answer) if game == 1 else (answer, baseline[question])))
        for model, question, answer in answers.select("model", "question_id", "answer").iter_rows()
        for game in GAMES
    ]
    schema = {"model": pl.String, "question_id": pl.String, "game": pl.Int64, "a": pl.String, "b": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def requests(benchmark: Benchmark, judge: Judge, games: pl.DataFrame) -> list[Request]:
    """One request per game: the judge's system prompt and the question with both answers."""
    config = yaml.safe_load(benchmark_files.path_of(benchmark, "judge_config.yaml").read_text(encoding="utf-8"))
    questions = {
        row["question_id"]: row["turns"][0]["content"] for row in benchmark_files.rows(benchmark, "question.jsonl")
    }
    template = config["prompt_template"][0]
    return [
        providers.request(
            judge,
            template.format(question_1=questions[question], answer_1=a, answer_2=b),
            system=config["system_prompt"],
        )
        for question, a, b in games.select("question_id", "a", "b").iter_rows()
    ]


def judgments(games: pl.DataFrame, judged: Sequence[Answer], judge: Judge, baseline: str) -> pl.DataFrame:
    """One row per game: the verdict, the model's points in it (1 won, 0.5 tied, 0 lost) and how often it counts."""
    verdicts = [verdict(a.text) for a in judged]
    points = [_points(found, game) for found, game in zip(verdicts, games["game"], strict=True)]
    return games.select("model", "question_id", "game").with_columns(
        pl.lit(baseline).alias("baseline"),
        pl.lit(judge.name).alias("judge"),
        pl.Series("status", [a.status for a in judged], dtype=pl.String),
        pl.Series("judgment", [a.text for a in judged], dtype=pl.String),
        pl.Series("verdict", verdicts, dtype=pl.String),
        pl.Series("points", [p for p, _ in points], dtype=pl.Float64),
        pl.Series("weight", [w for _, w in points], dtype=pl.Int64),
        pl.Series("request_key", [a.key for a in judged], dtype=pl.String),
    )


def verdict(judgment: str) -> str | None:
    """The verdict of a judgment: the one label in double brackets, None without one or with different ones."""
    found = set(VERDICT.findall(judgment))
    return found.pop() if len(found) == 1 else None


def _points(verdict: str | None, game: int) -> tuple[float | None, int]:
    """The model's points and the battle's weight; a label outside the five counts for nothing."""
    if verdict not in OUTCOMES:
        return None, 0
    for_b, weight = OUTCOMES[verdict]
    return (for_b if game == 1 else 1 - for_b), weight
