"""Arena-Hard v0.1: 500 questions, each answer in two games against a baseline's, and a judge's verdict of each game.

The rules are those of arena-hard-auto; the judge's prompts are read from the benchmark's `judge_config.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.benchmarks.scoring import answers as candidates
from nift_assets.benchmarks.scoring import files, games, json_lines, verdicts
from nift_assets.benchmarks.scoring.files import PublishedFile
from nift_assets.benchmarks.scoring.games import GameOutcome
from nift_assets.benchmarks.scoring.interface import BenchmarkTable, Measure, Runner, ScoredFiles, Size
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Benchmark, Judge

VERSION = 1
NAME = "arena_hard"
TITLE = "Arena-Hard"
MEASURES = (
    Measure(
        name=NAME,
        title=TITLE,
        column="Arena-Hard (%)",
        unit="win rate against the baseline, in percent",
        limit=100,
    ),
)
ASKED = "question.jsonl"
RUNNER: Runner = "conversations"
_HOME = "https://raw.githubusercontent.com/lmarena/arena-hard-auto/{}/"
PUBLISHED = (
    PublishedFile(
        path=ASKED,
        url=_HOME.format("6c82720015d5da7b8795b809b91f63ef74abbf6a") + "data/arena-hard-v0.1/question.jsonl",
        sha256="4daad38811161c3ba5c248f26b90c3cef89634f4c772002ed9138c1e13f63e9f",
    ),
    PublishedFile(
        path="model_answer/gpt-4-0314.jsonl",
        url=_HOME.format("e0a8ea1df42c1df76451a6cd04b14e31ff992b87")
        + "data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl",
        sha256="245109b8fe7c3bef0304f1c559d29da377f97f61535ad1170b46a61a08eb9ac7",
    ),
    PublishedFile(
        path="judge_config.yaml",
        url=_HOME.format("b88a301e1b9abca0fe37458ed69e0bbb35b09a69") + "config/judge_config.yaml",
        sha256="6e001736bacacdb1591ffca7eec953a7089f8f5604872d1ca4f9a6f9de1ee451",
    ),
)
# Measured on real judgments: 1,200 to 2,000 tokens in, 640 out.
SIZE = Size(questions=500, calls_per_question=2, input=(1_200, 1_700, 2_400), output=(400, 600, 850))
# Of the published benchmark, where no file says.
QUESTIONS, BASELINE = 500, "gpt-4-0314"


def check(row: Benchmark) -> None:
    """ValueError for a row without the model whose answers are compared with."""
    if row.baseline is None:
        raise ValueError(f"benchmark {row.name!r} has no baseline; name the model whose answers are on file")


def options(row: Benchmark) -> Mapping[str, object]:
    """Its answers are greedy, and a template's BOS is not doubled, as on the server that the tool asks. ValueError
    before anything is answered for questions that could not be judged."""
    files.taken(row, ASKED, take=_question)
    return {"arena_hard": files.path_of(row, ASKED), "arena_hard_tokens": row.max_new_tokens}


def questions(row: Benchmark) -> Iterator[tuple[str, str]]:
    """Every turn of every question, with the question's id, be it a text or, to who only reads them, a number."""
    for question, turns in files.taken(row, ASKED, take=lambda asked: (str(asked["question_id"]), _turns(asked))):
        yield from ((question, turn) for turn in turns)


def _question(row: Mapping[str, Any]) -> tuple[str, list[str]]:
    return files.text(row["question_id"]), _turns(row)


def _turns(row: Mapping[str, Any]) -> list[str]:
    return files.texts([turn["content"] for turn in row["turns"]])


def answers(row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per question."""
    frame = pl.DataFrame(
        {
            "model": model,
            "question_id": answer["question_id"],
            "answer": answer["turns"][0],
            "tokens": answer["tokens"][0],
            "stopped": answer["stopped"][0],
        }
        for answer in rows
    )
    return BenchmarkTable(frame, {"mean_tokens": frame["tokens"].mean()})


def requests(row: Benchmark, judge: Judge, answers: pl.DataFrame) -> list[Request]:
    """One request per game: the judge's system prompt and the question with both answers."""
    system, template = files.settings(
        row, row.judge_config, lambda said: (files.text(said["system_prompt"]), files.text(said["prompt_template"][0]))
    )
    asked = {question: turns[0] for question, turns in files.taken(row, ASKED, take=_question)}
    return [
        providers.request(
            judge,
            files.filled(
                template, f"the prompt of {row.judge_config}", question_1=asked[question], answer_1=a, answer_2=b
            ),
            system=system,
        )
        for question, a, b in played(row, answers).select("question_id", "a", "b").iter_rows()
    ]


def played(row: Benchmark, answers: pl.DataFrame) -> pl.DataFrame:
    """One row per question × game with the answers in places A and B."""
    assert row.baseline is not None, "its row is checked"
    baseline_answers = files.taken(
        row,
        "model_answer",
        f"{row.baseline}.jsonl",
        take=lambda answer: (
            files.text(answer["question_id"]),
            files.text(answer["choices"][0]["turns"][0]["content"]),
        ),
    )
    return games.played(answers, dict(baseline_answers))


def retries(requests: Sequence[Request], judged: Sequence[Answer]) -> Mapping[int, Request]:
    """The second request of every game whose judge wrote something and no verdict."""
    return games.retries(requests, judged)


def judgments(
    row: Benchmark,
    judge: Judge,
    answers: pl.DataFrame,
    requests: Sequence[Request],
    judged: Sequence[Answer],
    retried: Mapping[int, Answer],
) -> BenchmarkTable:
    """One row per game: the verdict, the model's points in it (1 won, 0.5 tied, 0 lost) and how often it counts.

    The judgment of a game that was asked about twice is both texts, the key and status those of the second.
    """
    frame = played(row, answers)
    last = [retried.get(place, answer) for place, answer in enumerate(judged)]
    texts = games.texts(judged, retried)
    rulings = [
        verdicts.read_ruling(text, answers=(a, b), prompt=request.messages[0].content)
        for text, request, (a, b) in zip(texts, requests, frame.select("a", "b").iter_rows(), strict=True)
    ]
    points = [games.points_of(t.verdict, game) for t, game in zip(rulings, frame["game"], strict=True)]
    rows = frame.select("model", "question_id", "game").with_columns(
        pl.lit(row.baseline).alias("baseline"),
        pl.lit(judge.name).alias("judge"),
        pl.Series("status", [a.status for a in last], dtype=pl.String),
        pl.Series("judgment", texts, dtype=pl.String),
        pl.Series("attempts", [1 + (place in retried) for place in range(len(judged))], dtype=pl.Int64),
        pl.Series("verdict", [t.verdict for t in rulings], dtype=pl.String),
        pl.Series("reading", [t.reading for t in rulings], dtype=pl.String),
        pl.Series("published_verdict", [games.one_verdict(text) for text in texts], dtype=pl.String),
        pl.Series("points", [p for p, _ in points], dtype=pl.Float64),
        pl.Series("weight", [w for _, w in points], dtype=pl.Int64),
        pl.Series("request_key", [a.key for a in last], dtype=pl.String),
    )
    return BenchmarkTable(rows, {"without_verdict": rows["verdict"].null_count(), "asked_twice": len(retried)})


def published_judgments(
    row: Benchmark,
    judge: Judge,
    answers: pl.DataFrame,
    requests: Sequence[Request],
    judged: Sequence[Answer],
    retried: Mapping[int, Answer],
) -> Iterator[dict[str, Any]]:
    """The lines of the tool's files: one per question, with its two games."""
    said = [
        {"user_prompt": request.messages[-1].content, "judgment": text, "score": games.one_verdict(text)}
        for request, text in zip(requests, games.texts(judged, retried), strict=True)
    ]
    for place, (model, question) in enumerate(answers.select("model", "question_id").iter_rows()):
        both = said[place * len(games.GAMES) : (place + 1) * len(games.GAMES)]
        yield {"question_id": question, "model": model, "judge": judge.name, "baseline": row.baseline, "games": both}


def published_answer(model: str, question: Any, turns: Sequence[str], tokens: Sequence[int | None]) -> dict[str, Any]:
    """An answer as the tool's files have it."""
    return {
        "question_id": question,
        "model_id": model,
        "choices": [{"index": 0, "turns": [*map(_published_turn, turns, tokens)]}],
    }


def _published_turn(text: str, tokens: int | None) -> dict[str, Any]:
    return {"content": text} if tokens is None else {"content": text, "token_len": tokens}


def score(model: str, results: pl.DataFrame) -> list[Measured]:
    """The win rate against the baseline in percent, a clear win counting three times."""
    columns = ("judge", "baseline", "question_id", "game", "published_verdict", "points", "weight", "reading")
    outcomes = []
    for judge, baseline, question, game, verdict, points, weight, reading in results.select(columns).iter_rows():
        theirs, their_weight = games.points_of(verdict, game)
        outcomes.append(
            GameOutcome(
                model=model,
                judge=judge,
                baseline=baseline,
                question=json_lines.identity(question),
                game=game,
                theirs=None if theirs is None else (theirs, their_weight),
                points=points,
                weight=weight,
                reading=reading,
            )
        )
    return [games.measured(model, NAME, outcomes, expected=results.height)]


def read(inputs: ScoredFiles) -> list[Measured]:
    """The scores of files of arena-hard-auto's `gen_judgment.py`, or of battles made of them."""
    if not inputs.judgments:
        raise ValueError("no judgments are named; give --judgments, a file or folder of arena-hard judgments")
    return games.of_files(
        NAME,
        games.judged_in(inputs.judgments),
        candidates.read(inputs.answers),
        files.ids_of(inputs.questions) if inputs.questions else None,
        baseline=inputs.baseline or BASELINE,
        number=QUESTIONS,
        style=inputs.style,
    )
