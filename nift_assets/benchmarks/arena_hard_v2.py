"""Arena-Hard v2.0: 500 hard and 250 creative prompts, each category with its own baseline and its own score.

The rules are those of arena-hard-auto as of 2025: the judge's last label counts, in double brackets or else in single
ones, and nobody is asked again. The tool takes no question of which one game has no verdict, and prints the mean of a
hundred unseeded bootstraps, so `published` is what they are around. Its judges are gpt-4.1 at temperature 0 with up to
16,000 tokens, and gemini-2.5 at temperature 1 with up to 32,000.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.benchmarks.scoring import answers as candidates
from nift_assets.benchmarks.scoring import bradley_terry, files, games, json_lines, scores, verdicts
from nift_assets.benchmarks.scoring.files import PublishedFile
from nift_assets.benchmarks.scoring.games import GameOutcome, Style
from nift_assets.benchmarks.scoring.interface import BenchmarkTable, Measure, Runner, ScoredFiles, Size
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Benchmark, Judge
from nift_training.messages import one_line

VERSION = 1
NAME = "arena_hard_v2"
TITLE = "Arena-Hard v2.0"
SUCCEEDS = "arena_hard"
# The categories, each with the model whose answers are compared with, and the number of its published questions.
BASELINES = {"hard_prompt": "o3-mini-2025-01-31", "creative_writing": "gemini-2.0-flash-001"}
NUMBERS = {"hard_prompt": 500, "creative_writing": 250}
UNIT = "win rate against the category's baseline, in percent"
MEASURES = (
    Measure(
        name=f"{NAME}_hard_prompt", title=f"{TITLE}, hard prompts", column="Hard prompts (%)", unit=UNIT, limit=100
    ),
    Measure(
        name=f"{NAME}_creative_writing",
        title=f"{TITLE}, creative writing",
        column="Creative writing (%)",
        unit=UNIT,
        limit=100,
    ),
)
ASKED = "question.jsonl"
SETTINGS = "judge_utils.py"
RUNNER: Runner = "conversations"
_HOME = "https://raw.githubusercontent.com/lmarena/arena-hard-auto/196f6b826783b3da7310e361a805fa36f0be83f3/"
_DATA = f"{_HOME}data/arena-hard-v2.0/"
PUBLISHED = (
    PublishedFile(
        path=ASKED,
        url=f"{_DATA}question.jsonl",
        sha256="a75cef6623db6b27aec810497b059f0659705d7ff48dcbccc5bd5b130728ac73",
    ),
    PublishedFile(
        path="model_answer/o3-mini-2025-01-31.jsonl",
        url=f"{_DATA}model_answer/o3-mini-2025-01-31.jsonl",
        sha256="c23a7c255eead99f7f86ad48aa1d8ccdb5b3334f2097e0e1e09184df87265e03",
    ),
    PublishedFile(
        path="model_answer/gemini-2.0-flash-001.jsonl",
        url=f"{_DATA}model_answer/gemini-2.0-flash-001.jsonl",
        git_blob="75513a4feb8e2f642a9bdb952d1c3ed245b9c952",
    ),
    PublishedFile(
        path="judge_config.yaml",
        url=f"{_HOME}config/arena-hard-v2.0.yaml",
        sha256="ee68e5c6ac98a79720bf11014fc3f7fc3c3e5899153b3b08efe3db0e174215a0",
    ),
    PublishedFile(
        path=SETTINGS,
        url=f"{_HOME}utils/judge_utils.py",
        sha256="cbb093f4fc27408d8447e946392f26f98538b1e3950f574aca91a0f7595167b4",
    ),
)
# As Arena-Hard's, with longer answers on both sides.
SIZE = Size(questions=750, calls_per_question=2, input=(1_500, 2_500, 4_000), output=(500, 900, 1_600))


def check(row: Benchmark) -> None:
    """ValueError for a row with a baseline, since each category has its own, or with several runs."""
    if row.baseline is not None:
        raise ValueError(f"benchmark {row.name!r} has a baseline for each category; leave {row.baseline!r} out")
    if row.runs != 1:
        raise ValueError(f"benchmark {row.name!r} is answered greedily, which is one run; leave runs out")


def options(row: Benchmark) -> Mapping[str, object]:
    """What the runner is told; ValueError before anything is answered for questions that could not be judged."""
    files.taken(row, ASKED, take=_question)
    return files.options(row, ASKED)


def questions(row: Benchmark) -> Iterator[tuple[str, str]]:
    """Every prompt with its id; who only reads them needs no category."""
    yield from files.taken(row, ASKED, take=lambda asked: (files.text(asked["uid"]), files.text(asked["prompt"])))


def _question(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """A question's id, its category and what it asks."""
    return files.text(row["uid"]), _category(row["category"]), files.text(row["prompt"])


def answers(row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per question."""
    categories = {uid: category for uid, category, _ in files.taken(row, ASKED, take=_question)}
    frame = pl.DataFrame(
        {
            "model": model,
            "question_id": answer["question_id"],
            "category": categories[answer["question_id"]],
            "run": answer["run"],
            "turn": 1,
            "answer": answer["turns"][0],
            "tokens": answer["tokens"][0],
            "stopped": answer["stopped"][0],
        }
        for answer in rows
    )
    return BenchmarkTable(frame, {"mean_tokens": frame["tokens"].mean()})


# -- the judge ---------------------------------------------------------------------------------------------------------


def requests(row: Benchmark, judge: Judge, answers: pl.DataFrame) -> list[Request]:
    """One request per game: the system prompt of the question's category, and the question with both answers."""
    template = files.settings(row, row.judge_config, lambda said: files.text(said["prompt_template"]))
    systems, asked = _systems(row), dict(questions(row))
    return [
        providers.request(
            judge,
            files.filled(
                template, f"the prompt of {row.judge_config}", QUESTION=asked[question], ANSWER_A=a, ANSWER_B=b
            ),
            system=systems[category],
        )
        for question, category, a, b in played(row, answers).select("question_id", "category", "a", "b").iter_rows()
    ]


def played(row: Benchmark, answers: pl.DataFrame) -> pl.DataFrame:
    """One row per question × game with the answers in places A and B, and the baseline of the category."""
    baseline_answers: dict[str, str] = {}
    for category in answers["category"].unique().sort():
        theirs = dict(
            files.taken(row, "model_answer", f"{BASELINES[_category(category)]}.jsonl", take=_baseline_answer)
        )
        asked = set(answers.filter(category=category)["question_id"])
        baseline_answers |= {question: text for question, text in theirs.items() if question in asked}
    baselines = pl.col("category").replace_strict(BASELINES, return_dtype=pl.String).alias("baseline")
    return games.played(answers, baseline_answers).with_columns(baselines)


def retries(requests: Sequence[Request], judged: Sequence[Answer]) -> Mapping[int, Request]:
    """Since 2025 the tool asks nobody again."""
    return {}


def judgments(
    row: Benchmark,
    judge: Judge,
    answers: pl.DataFrame,
    requests: Sequence[Request],
    judged: Sequence[Answer],
    retried: Mapping[int, Answer],
) -> BenchmarkTable:
    """One row per game: the verdict, the model's points in it (1 won, 0.5 tied, 0 lost) and how often it counts."""
    frame = played(row, answers)
    rulings = [
        verdicts.read_last_ruling(a.text, answers=(first, second), prompt=request.messages[0].content)
        for a, request, (first, second) in zip(judged, requests, frame.select("a", "b").iter_rows(), strict=True)
    ]
    ours = [games.points_of(t.verdict, game) for t, game in zip(rulings, frame["game"], strict=True)]
    labels = [verdicts.read_last_ruling(a.text).verdict for a in judged]
    alone = {question for question, label in zip(frame["question_id"], labels, strict=True) if label is None}
    theirs = [
        games.points_of(None if question in alone else label, game)
        for question, game, label in zip(frame["question_id"], frame["game"], labels, strict=True)
    ]
    rows = frame.select("model", "question_id", "category", "run", "turn", "game", "baseline").with_columns(
        pl.lit(judge.name).alias("judge"),
        pl.Series("status", [a.status for a in judged], dtype=pl.String),
        pl.Series("judgment", [a.text for a in judged], dtype=pl.String),
        pl.lit(1).alias("attempts"),
        pl.Series("verdict", [t.verdict for t in rulings], dtype=pl.String),
        pl.Series("reading", [t.reading for t in rulings], dtype=pl.String),
        pl.Series("points", [p for p, _ in ours], dtype=pl.Float64),
        pl.Series("weight", [w for _, w in ours], dtype=pl.Int64),
        pl.Series("published_points", [p for p, _ in theirs], dtype=pl.Float64),
        pl.Series("published_weight", [w for _, w in theirs], dtype=pl.Int64),
        pl.Series("request_key", [a.key for a in judged], dtype=pl.String),
    )
    return BenchmarkTable(rows, {"without_verdict": rows["verdict"].null_count()})


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
        {
            "score": verdicts.read_last_ruling(answer.text).verdict,
            "judgment": {"answer": answer.text},
            "prompt": [{"role": message.role, "content": message.content} for message in request.messages],
        }
        for request, answer in zip(requests, judged, strict=True)
    ]
    for place, (model, question, category) in enumerate(answers.select("model", "question_id", "category").iter_rows()):
        yield {
            "uid": question,
            "category": category,
            "judge": judge.name,
            "model": model,
            "baseline": BASELINES[category],
            "games": said[place * len(games.GAMES) : (place + 1) * len(games.GAMES)],
        }


def published_answer(model: str, question: Any, turns: Sequence[str], tokens: Sequence[int | None]) -> dict[str, Any]:
    """An answer as the tool's files have it."""
    said = {"role": "assistant", "content": {"answer": turns[0]}}
    style = {} if tokens[0] is None else {"metadata": {"token_len": tokens[0]}}
    return {"uid": question, "model": model, "messages": [said], **style}


def _systems(row: Benchmark) -> Mapping[str, str]:
    """What the judge is told in each category: the published file's constants, read and never run."""
    path = files.path_of(row, SETTINGS)
    constants: dict[str, Any] = {}
    try:
        for statement in ast.parse(path.read_text(encoding="utf-8-sig")).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                constants[statement.targets[0].id] = _constant(statement.value, constants)
        return {name: files.text(constants["JUDGE_SETTINGS"][name]["system_prompt"]) for name in BASELINES}
    except (SyntaxError, ValueError, LookupError, TypeError, RecursionError) as mistake:
        raise ValueError(
            f"{path} does not say in JUDGE_SETTINGS what the judge is told of {' and '.join(BASELINES)} "
            f"({type(mistake).__name__}: {one_line(mistake)}); put the published file there"
        ) from None


def _constant(value: ast.expr, constants: Mapping[str, Any]) -> Any:
    if isinstance(value, ast.Name):
        return constants[value.id]
    if isinstance(value, ast.Dict):
        keys = (ast.literal_eval(key) for key in value.keys if key is not None)
        return {key: _constant(value, constants) for key, value in zip(keys, value.values, strict=True)}
    return ast.literal_eval(value)


def _category(name: Any) -> str:
    if not isinstance(name, str) or name not in BASELINES:
        raise ValueError(f"{TITLE} has no category {name!r}; it has {', '.join(BASELINES)}")
    return name


def _baseline_answer(row: Mapping[str, Any]) -> tuple[str, str]:
    return files.text(row["uid"]), files.text(row["messages"][-1]["content"]["answer"])


# -- the score ---------------------------------------------------------------------------------------------------------


def score(model: str, results: pl.DataFrame) -> list[Measured]:
    """The win rate of each category that there is, in percent, a clear win counting three times."""
    return [
        games.measured(model, f"{NAME}_{category}", _outcomes(model, rows), expected=rows.height)
        for category in BASELINES
        if (rows := results.filter(category=category)).height
    ]


def _outcomes(model: str, results: pl.DataFrame) -> list[GameOutcome]:
    columns = ("judge", "baseline", "question_id", "game", "published_points", "published_weight", "points", "weight")
    return [
        GameOutcome(
            model=model,
            judge=judge,
            baseline=baseline,
            question=question,
            game=game,
            theirs=None if theirs is None else (theirs, their_weight),
            points=points,
            weight=weight,
            reading=reading,
        )
        for judge, baseline, question, game, theirs, their_weight, points, weight, reading in results.select(
            *columns, "reading"
        ).iter_rows()
    ]


def owns(inputs: ScoredFiles) -> bool:
    """Whether files of arena-hard-auto are of this version: it alone has these categories."""
    first = next(games.judged_in(inputs.judgments), None)
    return isinstance(first, games.Game) and first.category in BASELINES


def read(inputs: ScoredFiles) -> list[Measured]:
    """The scores of files of arena-hard-auto's `gen_judgment.py` as of 2025, category by category."""
    if not inputs.judgments:
        raise ValueError("no judgments are named; give --judgments, a file or folder of arena-hard-v2 judgments")
    rows = [row for row in games.judged_in(inputs.judgments) if isinstance(row, games.Game)]
    model_answers = list(candidates.read(inputs.answers))
    measured = []
    for category, its in scores.grouped(rows, lambda row: _category(row.category)).items():
        measured += games.of_files(
            f"{NAME}_{category}",
            its,
            model_answers,
            _question_ids(inputs, category),
            baseline=inputs.baseline or BASELINES[category],
            number=NUMBERS[category],
            style=inputs.style,
            fit=None,
            control=style_controlled,
        )
    return measured


def _question_ids(inputs: ScoredFiles, category: str) -> list[str] | None:
    if inputs.questions is None:
        return None
    question_ids = []
    for _, path, number, row in json_lines.lines([inputs.questions]):
        if not isinstance(row.get("uid"), str) or row.get("category") not in [*BASELINES]:
            raise ValueError(f"{path} line {number} has no uid and category; give the published {ASKED}")
        question_ids += [row["uid"]] if row["category"] == category else []
    if not question_ids:
        raise ValueError(f"{inputs.questions} has no question of {category!r}, which was judged; give those asked")
    return question_ids


def style_controlled(models: Sequence[str], wins: Sequence[float], styles: Sequence[Style]) -> dict[str, float]:
    """The win rate of each model in percent with the effect of style taken out, by the rules of 2025: the lengths are
    compared as they are, headers, lists and bold by how dense they are in a text, and nothing is regularised."""
    import numpy as np

    names = list(dict.fromkeys(models))
    theirs, ours = (np.array([[pair[side] for pair in style.values()] for style in styles]) for side in (0, 1))
    length = (ours[:, :1] - theirs[:, :1]) / np.maximum(ours[:, :1] + theirs[:, :1], 1)
    dense, their_dense = ours[:, 1:] / (ours[:, :1] + 1), theirs[:, 1:] / (theirs[:, :1] + 1)
    differ = np.hstack([length, (dense - their_dense) / (dense + their_dense + 1)])
    spread = differ.std(axis=0, ddof=1)
    differ = (differ - differ.mean(axis=0)) / np.where(spread > 0, spread, 1)
    which = np.array([[float(model == name) for name in names] for model in models])
    # Without any penalty a style that never differs has no weight that could be found.
    weights = bradley_terry.logistic(np.hstack([which, differ]), np.array(wins, dtype=float), count=1.0, penalty=1e-9)
    return {name: float(100 / (1 + np.exp(-weights[place]))) for place, name in enumerate(names)}
