"""Arena-Hard v0.1: two games per question against a baseline with the places swapped, and the verdict of each.

The rules are those of arena-hard-auto; the judge's prompts are read from the benchmark's `judge_config.yaml`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import polars as pl
import yaml

from nift_assets import providers
from nift_assets.benchmarks import files, verdicts
from nift_assets.protocol import Answer, Message, Request
from nift_assets.rows import Benchmark, Judge

# What arena-hard-auto says, once, to a judge that has not come to a verdict.
CONTINUE = "continue your judgment and finish by outputting a final verdict label"
GAMES = (1, 2)

# What a verdict says about the answer in place B, and how often its battle counts: a clear win three times.
OUTCOMES = {"A>>B": (0.0, 3), "A>B": (0.0, 1), "A=B": (0.5, 1), "B>A": (1.0, 1), "B>>A": (1.0, 3)}


def games(benchmark: Benchmark, answers: pl.DataFrame) -> pl.DataFrame:
    """One row per question × game with the answers in places A and B; the model stands in place B in game 1."""
    assert benchmark.baseline is not None
    baseline = {
        row["question_id"]: row["choices"][0]["turns"][0]["content"]
        for row in files.rows(benchmark, "model_answer", f"{benchmark.baseline}.jsonl")
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
    config = yaml.safe_load(files.path_of(benchmark, benchmark.judge_config).read_text(encoding="utf-8"))
    questions = {row["question_id"]: row["turns"][0]["content"] for row in files.rows(benchmark, "question.jsonl")}
    template = config["prompt_template"][0]
    return [
        providers.request(
            judge,
            template.format(question_1=questions[question], answer_1=a, answer_2=b),
            system=config["system_prompt"],
        )
        for question, a, b in games.select("question_id", "a", "b").iter_rows()
    ]


def retries(requests: Sequence[Request], judged: Sequence[Answer]) -> dict[int, Request]:
    """The second request of every game, by its place, whose judge wrote something and no verdict."""
    again = {}
    for place, (request, answer) in enumerate(zip(requests, judged, strict=True)):
        if answer.text.strip() and not verdicts.VERDICT.search(answer.text):
            more = (Message(role="assistant", content=answer.text), Message(role="user", content=CONTINUE))
            again[place] = dataclasses.replace(request, messages=(*request.messages, *more))
    return again


def judgments(
    games: pl.DataFrame,
    requests: Sequence[Request],
    judged: Sequence[Answer],
    judge: Judge,
    baseline: str,
    retried: Mapping[int, Answer] | None = None,
) -> pl.DataFrame:
    """One row per game: the verdict, the model's points in it (1 won, 0.5 tied, 0 lost) and how often it counts.

    The judgment of a game that was asked about twice is both texts, the key and status those of the second.
    """
    retried = retried or {}
    last = [retried.get(place, answer) for place, answer in enumerate(judged)]
    texts = [
        f"{first.text}\n{retried[place].text}" if place in retried else first.text for place, first in enumerate(judged)
    ]
    told = [
        verdicts.ruled(text, answers=(a, b), prompt=request.messages[0].content)
        for text, request, (a, b) in zip(texts, requests, games.select("a", "b").iter_rows(), strict=True)
    ]
    points = [points_of(t.verdict, game) for t, game in zip(told, games["game"], strict=True)]
    return games.select("model", "question_id", "game").with_columns(
        pl.lit(baseline).alias("baseline"),
        pl.lit(judge.name).alias("judge"),
        pl.Series("status", [a.status for a in last], dtype=pl.String),
        pl.Series("judgment", texts, dtype=pl.String),
        pl.Series("attempts", [1 + (place in retried) for place in range(len(judged))], dtype=pl.Int64),
        pl.Series("verdict", [t.verdict for t in told], dtype=pl.String),
        pl.Series("reading", [t.reading for t in told], dtype=pl.String),
        pl.Series("published_verdict", [verdict(text) for text in texts], dtype=pl.String),
        pl.Series("points", [p for p, _ in points], dtype=pl.Float64),
        pl.Series("weight", [w for _, w in points], dtype=pl.Int64),
        pl.Series("request_key", [a.key for a in last], dtype=pl.String),
    )


def verdict(judgment: str) -> str | None:
    """The verdict as the tool reads it, whoever wrote it: the one label in double brackets, else None."""
    found = set(verdicts.VERDICT.findall(judgment))
    return found.pop() if len(found) == 1 else None


def points_of(verdict: str | None, game: int) -> tuple[float | None, int]:
    """The model's points and the battle's weight; a label outside the five counts for nothing."""
    if verdict not in OUTCOMES:
        return None, 0
    for_b, weight = OUTCOMES[verdict]
    return (for_b if game == 1 else 1 - for_b), weight
