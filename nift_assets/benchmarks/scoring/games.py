"""Two games per question between a model and a baseline, in swapped places, and what their verdicts come to.

The rules are those of arena-hard-auto, of either vintage.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.benchmarks.scoring import answers as candidates
from nift_assets.benchmarks.scoring import bradley_terry, json_lines, resampling, scores, verdicts
from nift_assets.benchmarks.scoring.answers import AnswerIndex, ModelAnswer
from nift_assets.benchmarks.scoring.json_lines import JsonObject
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.protocol import Answer, Message, Request

# What arena-hard-auto says, once, to a judge that has not come to a verdict.
CONTINUE = "continue your judgment and finish by outputting a final verdict label"
GAMES = (1, 2)
Fit = Callable[[Sequence[str], Sequence[float]], Sequence[bradley_terry.Rate]]
Style = Mapping[str, tuple[float, float]]
StyleControl = Callable[[Sequence[str], Sequence[float], Sequence[Style]], Mapping[str, float]]

# What a verdict says about the answer in place B, and how often its battle counts: a clear win three times.
OUTCOMES = {"A>>B": (0.0, 3), "A>B": (0.0, 1), "A=B": (0.5, 1), "B>A": (1.0, 1), "B>>A": (1.0, 3)}

# How the judge's prompt sets off the answers. What follows the first mark is the answer up to the last: an answer can
# hold such marks itself.
BOTH = re.compile(
    r"<\|The Start of Assistant A's Answer\|>\n(.*)\n<\|The End of Assistant A's Answer\|>\s*"
    r"<\|The Start of Assistant B's Answer\|>\n(.*)\n<\|The End of Assistant B's Answer\|>",
    re.DOTALL,
)


def played(answers: pl.DataFrame, baselines: Mapping[str, str]) -> pl.DataFrame:
    """One row per answer × game, with the answers in places A and B; the model stands in place B in game 1.
    `baselines` has the baseline's answer to each question; ValueError for one it has none to."""
    if unanswered := sorted({*answers["question_id"]} - baselines.keys()):
        raise ValueError(
            f"the baseline has no answer in model_answer to {len(unanswered)} of the questions that were answered, the "
            f"first {unanswered[0]!r}; put the file of its answers to the same questions there"
        )
    pairs = pl.DataFrame({"game": list(GAMES)}, schema={"game": pl.Int64})
    games = answers.join(pairs, how="cross", maintain_order="left_right")
    theirs = pl.col("question_id").replace_strict(baselines, return_dtype=pl.String)
    first = pl.col("game") == 1
    return games.with_columns(
        pl.when(first).then(theirs).otherwise("answer").alias("a"),
        pl.when(first).then("answer").otherwise(theirs).alias("b"),
    )


def retries(requests: Sequence[Request], judged: Sequence[Answer]) -> dict[int, Request]:
    """The second request of every game, by its place, whose judge wrote something and no verdict."""
    again = {}
    for place, (request, answer) in enumerate(zip(requests, judged, strict=True)):
        if answer.text.strip() and not verdicts.VERDICT.search(answer.text):
            more = (Message(role="assistant", content=answer.text), Message(role="user", content=CONTINUE))
            again[place] = dataclasses.replace(request, messages=(*request.messages, *more))
    return again


def texts(judged: Sequence[Answer], retried: Mapping[int, Answer]) -> list[str]:
    """What the judge wrote of each game: of one that was asked about twice both texts."""
    return [
        f"{first.text}\n{retried[place].text}" if place in retried else first.text for place, first in enumerate(judged)
    ]


def one_verdict(judgment: str) -> str | None:
    """The verdict as the tool reads it, whoever wrote it: the one label in double brackets, else None."""
    labels = set(verdicts.VERDICT.findall(judgment))
    return labels.pop() if len(labels) == 1 else None


def points_of(verdict: str | None, game: int) -> tuple[float | None, int]:
    """The model's points and the battle's weight; a label outside the five counts for nothing."""
    if verdict not in OUTCOMES:
        return None, 0
    for_b, weight = OUTCOMES[verdict]
    return (for_b if game == 1 else 1 - for_b), weight


# -- the score ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GameOutcome:
    """One game, or one battle, whose game is not known: the model's points (1 won, 0.5 tied) and how
    often they count; `theirs` are both as the tool has them, None where it takes the game for nothing."""

    model: str
    judge: str
    baseline: str
    question: str
    game: int | None
    theirs: tuple[float, int] | None
    points: float | None
    weight: int
    reading: str
    shown: bytes = b""
    of_files: bool = False

    @property
    def place(self) -> tuple[str, int] | None:
        return None if self.game is None else (self.question, self.game)

    @property
    def counts(self) -> bool:
        return self.points is not None


def measured(
    name: str,
    measure: str,
    outcomes: Sequence[GameOutcome],
    *,
    expected: int,
    question_ids: set[str] | None = None,
    index: AnswerIndex | None = None,
    rate: bradley_terry.Rate | None = None,
    controlled: float | None = None,
) -> Measured:
    """The win rate against the baseline in percent: the weighted share of won battles, a tie being half a win.

    With one baseline this equals the maximum-likelihood Bradley-Terry rate that the published tool fits. That fit is of
    all models together, so of a single one its closed form stands in its place.
    """
    raw = any(outcome.game for outcome in outcomes)
    once = scores.once(outcomes)
    counts = Counter(outcome.reading for outcome in outcomes if outcome.reading != "verdict") + once.counts
    counts["of no question"] = sum(
        question_ids is not None and outcome.question not in question_ids for outcome in outcomes
    )
    kept = [outcome for outcome in once.kept.values() if question_ids is None or outcome.question in question_ids]
    together: dict[str, tuple[float, float]] = {}
    for outcome in kept:
        won, weight = together.get(outcome.question, (0.0, 0.0))
        together[outcome.question] = (won + 100 * (outcome.points or 0.0) * outcome.weight, weight + outcome.weight)
    verdicts_there = sum(outcome.points is not None for outcome in kept) if raw else len(together)
    theirs = [outcome.theirs for outcome in outcomes if outcome.theirs]
    weight = sum(weight for _, weight in theirs)
    closed_form = 100 * sum(points * weight for points, weight in theirs) / weight if weight else None
    tokens = index.tokens(outcomes[0].model) if index else []
    # A file of battles has no line where a verdict is missing, so only whole questions are seen to be.
    notes = [] if raw else ["battles: missing games cannot be seen, only missing questions"]
    if len(against := sorted({outcome.baseline for outcome in outcomes})) > 1:
        notes.append(f"against several baselines: {', '.join(against)}")
    return scores.resampled(
        name,
        measure,
        resampling.sample([together]),
        published=rate.rate if rate else closed_form,
        questions=len(together),
        expected=max(expected, verdicts_there),
        missing=max(expected - verdicts_there, 0),
        parts={
            "published low": rate.low if rate else None,
            "published high": rate.high if rate else None,
            "closed form": rate.closed_form if rate else closed_form,
            **({"style controlled": controlled} if controlled is not None else {}),
            **({"mean tokens": sum(tokens) / len(tokens)} if tokens else {}),
        },
        counts={**counts, "battles": weight, **(index.flags(outcomes[0].model) if index else {})},
        notes=tuple(notes),
    )


# -- other tools' files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Game:
    """One game: in game 1 the model stands in place B, in game 2 in place A.

    The tool of 2025, whose files have a `uid`, reads the judge's last label, and takes no game whose other is missing.
    """

    source: int
    model: str
    question: str
    game: int
    judge: str
    score: str | None
    judgment: str | None
    prompt: str
    baseline: str | None = None
    category: str | None = None
    of_2025: bool = False
    alone: bool = False  # the other game of its line has no verdict


@dataclass(frozen=True, kw_only=True)
class Battle:
    """One line of a file of battles, where a clear verdict stands three times: 1 if the model won, 0.5 if it tied."""

    source: int
    model: str
    question: str
    baseline: str
    points: float
    judge: str = ""


def of_files(
    measure: str,
    rows: Iterable[Game | Battle],
    answers: Iterable[ModelAnswer] = (),
    questions: Sequence[Any] | None = None,
    *,
    baseline: str,
    number: int,
    style: bool = False,
    fit: Fit | None = bradley_terry.rates,
    control: StyleControl = bradley_terry.style_controlled,
) -> list[Measured]:
    """One win rate per model, with several judges per model and judge. `number` is that of the published questions,
    for where `questions` are not known. With `style` also the rate that is controlled for style, for which both
    answers to every question must be there. How the tool fits all models' battles together is `fit`, without which the
    closed form stands in its place, and how it takes the style out `control`."""
    index, question_ids = AnswerIndex(answers), scores.identities(questions)
    outcomes = [outcome_of(row, index, baseline) for row in rows]
    rates: dict[tuple[str, str], bradley_terry.Rate] = {}
    controlled: dict[tuple[str, str], float] = {}
    for judge, ruled in scores.grouped(outcomes, lambda outcome: outcome.judge).items():
        battles = [
            (outcome, outcome.theirs[0]) for outcome in ruled if outcome.theirs for _ in range(outcome.theirs[1])
        ]
        models, points = [outcome.model for outcome, _ in battles], [won for _, won in battles]
        rates |= {(judge, rate.model): rate for rate in (fit(models, points) if battles and fit else ())}
        if style and battles:
            styles = [_styles(outcome, index) for outcome, _ in battles]
            rate_by_model = control(models, points, styles)
            controlled |= {(judge, model): rate for model, rate in rate_by_model.items()}
    if not any(outcome.theirs for outcome in outcomes):
        raise ValueError("there is no verdict that counts in these files; give files of Arena-Hard judgments")
    number = number if question_ids is None else len(question_ids)
    return [
        measured(
            name,
            measure,
            its,
            expected=len(GAMES) * number if any(outcome.game for outcome in its) else number,
            question_ids=question_ids,
            index=index,
            rate=rates.get((its[0].judge, its[0].model)),
            controlled=controlled.get((its[0].judge, its[0].model)),
        )
        for name, its in scores.named(outcomes).items()
    ]


def judged_in(paths: Sequence[Path]) -> Iterator[Game | Battle]:
    """The games in files of arena-hard-auto's `gen_judgment.py` of either vintage, or the battles made of them."""
    for source, path, number, row in json_lines.lines(paths):
        if "winner" in row:
            yield _battle(source, path, number, row)
            continue
        json_lines.require(row, ("model", "games"), path, number)
        question = row.get("question_id", row.get("uid"))
        if question is None:
            raise ValueError(f"{path} line {number} lacks question_id (or uid); give a file of judgments")
        if not isinstance(games := row["games"] or [], list) or len(games) > len(GAMES):
            raise ValueError(
                f"{path} line {number} has games that are no list of {len(GAMES)}, in swapped places; give a file of "
                "judgments"
            )
        both = [game if isinstance(game, dict) else {} for game in games]
        alone = len(both) < 2 or any(json_lines.text_of(game.get("score")) is None for game in both)
        for place, played in enumerate(both, start=1):
            yield Game(
                source=source,
                model=str(row["model"]),
                question=json_lines.identity(question),
                game=place,
                judge=json_lines.judge_of(row.get("judge")),
                score=json_lines.text_of(played.get("score")),
                judgment=json_lines.content_of(played.get("judgment")),
                prompt=json_lines.content_of(played.get("user_prompt", played.get("prompt"))) or "",
                baseline=json_lines.text_of(row.get("baseline")),
                category=json_lines.text_of(row.get("category")),
                of_2025="uid" in row,
                alone=alone,
            )


def _battle(source: int, path: Path, number: int, row: JsonObject) -> Battle:
    json_lines.require(row, ("question_id", "model_a", "model_b"), path, number)
    points = {"model_a": 0.0, "model_b": 1.0}.get(str(row["winner"]), 0.5 if "tie" in str(row["winner"]) else None)
    if points is None:
        raise ValueError(f"{path} line {number} has the winner {row['winner']!r}; it is model_a, model_b or tie")
    return Battle(
        source=source,
        model=str(row["model_b"]),
        question=json_lines.identity(row["question_id"]),
        baseline=str(row["model_a"]),
        points=points,
        judge=json_lines.judge_of(row.get("judge"), otherwise=""),
    )


def outcome_of(row: Game | Battle, index: AnswerIndex, baseline: str) -> GameOutcome:
    """The outcome that counts: of a game by the judge's own words where the file has them, else by its score."""
    if isinstance(row, Battle):
        return GameOutcome(
            model=row.model,
            judge=row.judge,
            baseline=row.baseline,
            question=row.question,
            game=None,
            theirs=(row.points, 1),
            points=row.points,
            weight=1,
            reading="verdict",
        )
    places = BOTH.search(row.prompt)
    ours = places[2 if row.game == 1 else 1] if places else ""
    if places:
        index.show(row.model, row.question, 1, ours)
    against = row.baseline or baseline
    texts = [text for name in (row.model, against) for text in index.turns(name, row.question)]
    label = verdicts.MIRRORED.get(row.score or "", row.score) if row.of_2025 else row.score
    points, weight = points_of(label, row.game)
    theirs = None if points is None or (row.of_2025 and row.alone) else (points, weight)
    reading = "verdict" if weight else "none" if row.score is None else "unknown_label"
    if row.judgment is not None:
        read = (verdicts.read_last_ruling if row.of_2025 else verdicts.read_ruling)(
            row.judgment, answers=[*texts, *(places.groups() if places else ())]
        )
        (points, weight), reading = points_of(read.verdict, row.game), read.reading
    answer = index.turns(row.model, row.question)
    return GameOutcome(
        model=row.model,
        judge=row.judge,
        baseline=against,
        question=row.question,
        game=row.game,
        theirs=theirs,
        points=points,
        weight=weight,
        reading=reading,
        shown=candidates.digest_of(row.prompt),
        of_files=bool(answer and ours) and answer[0].strip() in ours,
    )


def _styles(outcome: GameOutcome, index: AnswerIndex) -> dict[str, tuple[float, float]]:
    """What the baseline's and the model's answer have of each element of style."""
    pair = [index.files.get((name, outcome.question)) for name in (outcome.baseline, outcome.model)]
    first, second = (answer if answer and answer.tokens is not None else None for answer in pair)
    if first is None or second is None:
        raise ValueError(
            f"style control needs the answers, with their tokens, of {outcome.model} and {outcome.baseline} to "
            f"question {outcome.question}; give both with --answers"
        )
    elements = ("tokens", "headers", "lists", "bold")
    return {name: (float(getattr(first, name)), float(getattr(second, name))) for name in elements}
