"""Scores of files that other tools wrote: what the benchmark's own tool says of them, and what they are worth.

`published` is the tool's own arithmetic on all there is in a file, to the last digit. `score` is the same arithmetic
over what counts: each verdict once, on its scale, and the judge's own. In a sound file the two are one number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from nift_assets import bradley_terry, published, statistics, verdicts
from nift_assets.arena_hard import GAMES, points_of
from nift_assets.published import Answered, Battle, Game, Judged, TaskScore
from nift_assets.scores import MOST_MISSING
from nift_assets.statistics import Sample
from nift_training import leaderboard

# Of the published benchmarks, where no file says: two turns of 80 questions, two games of 500.
TURNS, MT_BENCH_QUESTIONS, ARENA_HARD_QUESTIONS = 2, 80, 500
# One answer to so large a share of the questions is no answer to them.
MOST_ALIKE = 0.1


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model on one benchmark as its files have it. `counts` says what was found besides: duplicates, verdicts that
    do not count by kind, flagged answers; `parts` are the numbers the score is made of."""

    model: str
    score: float | None
    published: float | None
    low: float | None
    high: float | None
    questions: int
    expected: int
    missing: int
    parts: Mapping[str, float | None] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sample: Sample | None = None

    @property
    def complete(self) -> bool:
        return self.missing <= MOST_MISSING * self.expected


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How much one model is above another on the questions both have, with p corrected over all pairs of the table."""

    one: str
    other: str
    difference: statistics.Difference
    corrected: float


def mt_bench(
    judgments: Iterable[Judged], answers: Iterable[Answered] = (), questions: Sequence[Any] | None = None
) -> list[Scored]:
    """One score per model, the mean over its runs; a file is a run."""
    said = {(a.model, a.question): a for a in answers}
    by_model = _grouped(judgments)
    return [_rated(model, rows, said, questions) for model, rows in by_model.items()]


def arena_hard(
    rows: Iterable[Game | Battle],
    answers: Iterable[Answered] = (),
    questions: Sequence[Any] | None = None,
    *,
    baseline: str = "gpt-4-0314",
    style: bool = False,
) -> list[Scored]:
    """One win rate per model. With `style` also the one that is controlled for style, for which both answers to every
    question must be there."""
    said = {(a.model, str(a.question)): a for a in answers}
    everything = list(rows)
    battles = [(row, points) for row in everything for points in _battles(row)]
    if not battles:
        raise ValueError("there is no verdict that counts in these files; give files of Arena-Hard judgments")
    rates = {
        rate.model: rate
        for rate in bradley_terry.rates([row.model for row, _ in battles], [points for _, points in battles])
    }
    controlled = _style_controlled(battles, said, baseline) if style else {}
    by_model = _grouped(everything)
    return [
        _ruled(model, games, said, questions, baseline, rates.get(model), controlled.get(model))
        for model, games in by_model.items()
    ]


def ifeval(responses: Mapping[str, Mapping[str, str]], prompts: Sequence[Mapping[str, Any]]) -> list[Scored]:
    """The four accuracies of each model and the mean of the two strict ones, over the prompts it has responded to."""
    from nift_training import ifeval as checker

    found = []
    for model, said in responses.items():
        rows = [{**row, "response": said[row["prompt"]]} for row in prompts if row["prompt"] in said]
        if not rows:
            raise ValueError(f"{model} has no response to any of these prompts; give the prompts it was asked")
        checked = checker.check(rows)
        parts = {}
        for kind in ("strict", "loose"):
            followed = [one[kind] for one in checked]
            parts[f"prompt {kind}"] = 100 * sum(all(f) for f in followed) / len(followed)
            parts[f"instruction {kind}"] = 100 * sum(map(sum, followed)) / sum(map(len, followed))
        strict = {row["key"]: one["strict"] for row, one in zip(rows, checked, strict=True)}
        sample = statistics.sample(
            [
                {key: (100.0 * all(followed), 1.0) for key, followed in strict.items()},
                {key: (100.0 * sum(followed), float(len(followed))) for key, followed in strict.items()},
            ]
        )
        low, high = statistics.interval(sample)
        found.append(
            Scored(
                model=model,
                score=sample.score(),
                published=sample.score(),
                low=low,
                high=high,
                questions=len(rows),
                expected=len(prompts),
                missing=len(prompts) - len(rows),
                parts=parts,
                counts={
                    "prompts": len(rows),
                    "prompts followed": sum(all(one) for one in strict.values()),
                    "instructions": sum(map(len, strict.values())),
                    "instructions followed": sum(map(sum, strict.values())),
                    **_alike(said.values()),
                    "unknown prompts": len(said.keys() - {row["prompt"] for row in prompts}),
                },
                sample=sample,
            )
        )
    return found


def open_llm_leaderboard(rows: Iterable[TaskScore]) -> list[Scored]:
    """The six tasks of each model and their plain mean; MMLU only where all 57 subjects are there. A task that was run
    twice counts as in the last file, by name."""
    by_model: dict[str, dict[tuple[str, str, str], list[TaskScore]]] = {}
    for row in rows:
        by_model.setdefault(row.model, {}).setdefault((row.task, row.metric, row.filter), []).append(row)
    return [_averaged(model, tasks) for model, tasks in by_model.items()]


def compare(scored: Sequence[Scored]) -> list[Compared]:
    """Every pair of the models, the p-values corrected over all of them."""
    pairs = [
        (one.model, other.model, difference)
        for one, other in combinations(scored, 2)
        if one.sample and other.sample and (difference := statistics.difference(one.sample, other.sample))
    ]
    corrected = statistics.holm([difference.p for _, _, difference in pairs])
    return [
        Compared(one=one, other=other, difference=difference, corrected=p)
        for (one, other, difference), p in zip(pairs, corrected, strict=True)
    ]


def questions_of(path: Path) -> list[Any]:
    """The questions of a benchmark's file, by their ids."""
    return [row.get("question_id", row.get("uid")) for _, _, _, row in published.lines([path])]


# -- MT-Bench ----------------------------------------------------------------------------------------------------------


def _rated(
    model: str, rows: Sequence[Judged], said: Mapping[tuple[str, Any], Answered], questions: Sequence[Any] | None
) -> Scored:
    known = None if questions is None else set(questions)
    counts: Counter[str] = Counter()
    runs: dict[int, dict[tuple[Any, int], float | None]] = {}
    theirs: dict[int, list[float]] = {}
    for row in rows:
        if known is not None and row.question not in known:
            counts["of no question"] += 1
        if row.score is not None and row.score != -1:
            theirs.setdefault(row.source, []).append(row.score)
        seen, place = runs.setdefault(row.source, {}), (row.question, row.turn)
        rating, reading = _reading(row, said.get((model, row.question)))
        if place in seen:
            counts["duplicates"] += 1
            if seen[place] is None and rating is not None:
                seen[place] = rating
            continue
        seen[place] = rating
        counts[reading] += reading != "verdict"
    if known is not None:
        runs = {run: {p: rating for p, rating in seen.items() if p[0] in known} for run, seen in runs.items()}
    expected = len(runs) * TURNS * (len(questions) if questions is not None else MT_BENCH_QUESTIONS)
    sample = statistics.sample([_turns_together(seen) for seen in runs.values()])
    counted = sum(rating is not None for seen in runs.values() for rating in seen.values())
    low, high = statistics.interval(sample)
    return Scored(
        model=model,
        score=sample.score(),
        published=_mean([_mean(scores) for scores in theirs.values()]),
        low=low,
        high=high,
        questions=len(sample.questions),
        expected=max(expected, counted),
        missing=max(expected - counted, 0),
        parts={f"turn {turn}": _mean(_of_turn(runs, turn)) for turn in (1, 2)},
        counts={**counts, "runs": len(runs), **_flags(model, said)},
        sample=sample,
    )


def _reading(row: Judged, answer: Answered | None) -> tuple[float | None, str]:
    """The rating that counts: read from the judge's own words where the file has them, else what the file says."""
    if row.judgment is None:
        usable = row.score is not None and verdicts.LOWEST <= row.score <= verdicts.HIGHEST
        missing = "none" if row.score in (None, -1) else "out_of_range"
        return (row.score, "verdict") if usable else (None, missing)
    read = verdicts.rated(row.judgment, answers=answer.turns if answer else (), prompt=_instructions(row.prompt))
    return read.rating, read.reading


def _instructions(prompt: str) -> str:
    """The judge's prompt up to the question: what follows are texts of others."""
    return prompt.partition("[Question]")[0]


def _turns_together(seen: Mapping[tuple[Any, int], float | None]) -> dict[Any, tuple[float, float]]:
    together: dict[Any, tuple[float, float]] = {}
    for (question, _), rating in seen.items():
        points, weight = together.get(question, (0.0, 0.0))
        together[question] = (points, weight) if rating is None else (points + rating, weight + 1)
    return together


def _of_turn(runs: Mapping[int, Mapping[tuple[Any, int], float | None]], turn: int) -> list[float | None]:
    return [_mean([rating for (_, t), rating in seen.items() if t == turn]) for seen in runs.values()]


# -- Arena-Hard --------------------------------------------------------------------------------------------------------


def _battles(row: Game | Battle) -> list[float]:
    """The model's points in the battles a line stands for, as the tool counts it: by the verdict in the file."""
    if isinstance(row, Battle):
        return [row.points]
    points, weight = points_of(row.score, row.game)
    return [] if points is None else [points] * weight


def _ruled(
    model: str,
    rows: Sequence[Game | Battle],
    said: Mapping[tuple[str, Any], Answered],
    questions: Sequence[Any] | None,
    baseline: str,
    rate: bradley_terry.Rate | None,
    controlled: float | None,
) -> Scored:
    known = None if questions is None else {str(question) for question in questions}
    counts: Counter[str] = Counter()
    seen: dict[tuple[str, int], tuple[float, float] | None] = {}
    for row in rows:
        if known is not None and row.question not in known:
            counts["of no question"] += 1
            continue
        if isinstance(row, Battle):  # which of its two games it is, the file does not say
            place, value = (row.question, len(seen)), (row.points, 1.0)
            seen[place] = value
            continue
        place = (row.question, row.game)
        points, weight, reading = _outcome(row, said, model, baseline)
        if place in seen:
            counts["duplicates"] += 1
            if seen[place] is None and points is not None:
                seen[place] = (points * weight, weight)
            continue
        seen[place] = None if points is None else (points * weight, weight)
        counts[reading] += reading != "verdict"
    together: dict[str, tuple[float, float]] = {}
    for (question, _), outcome in seen.items():
        won, played = together.get(question, (0.0, 0.0))
        more, counted = outcome or (0.0, 0.0)
        together[question] = (won + 100 * more, played + counted)
    sample = statistics.sample([together])
    low, high = statistics.interval(sample)
    raw = any(isinstance(row, Game) for row in rows)
    number = len(known) if known is not None else ARENA_HARD_QUESTIONS
    expected = len(GAMES) * number if raw else number
    found = sum(outcome is not None for outcome in seen.values()) if raw else len(together)
    tokens = [a.tokens for (name, _), a in said.items() if name == model and a.tokens is not None]
    return Scored(
        model=model,
        score=sample.score(),
        published=rate.rate if rate else None,
        low=low,
        high=high,
        questions=len(together),
        expected=max(expected, found),
        missing=max(expected - found, 0),
        parts={
            "published low": rate.low if rate else None,
            "published high": rate.high if rate else None,
            "closed form": rate.closed_form if rate else None,
            **({"style controlled": controlled} if controlled is not None else {}),
            **({"mean tokens": sum(tokens) / len(tokens)} if tokens else {}),
        },
        counts={**counts, "battles": rate.battles if rate else 0, **_flags(model, said)},
        sample=sample,
        # A file of battles has no line where a verdict is missing, so only whole questions are seen to be.
        notes=() if raw else ("battles: missing games cannot be seen, only missing questions",),
    )


def _outcome(
    row: Game, said: Mapping[tuple[str, Any], Answered], model: str, baseline: str
) -> tuple[float | None, int, str]:
    if row.judgment is None:
        points, weight = points_of(row.score, row.game)
        return points, weight, "verdict" if weight else ("none" if row.score is None else "unknown_label")
    texts = [a.turns for name in (model, row.baseline or baseline) if (a := said.get((name, row.question)))]
    read = verdicts.ruled(row.judgment, answers=[text for turns in texts for text in turns])
    return (*points_of(read.verdict, row.game), read.reading)


def _style_controlled(
    battles: Sequence[tuple[Game | Battle, float]], said: Mapping[tuple[str, Any], Answered], baseline: str
) -> dict[str, float]:
    styles = []
    for row, _ in battles:
        pair = [said.get((name, row.question)) for name in (row.baseline or baseline, row.model)]
        if any(answer is None or answer.tokens is None for answer in pair):
            raise ValueError(
                f"style control needs the answers, with their tokens, of {row.model} and {row.baseline or baseline} to "
                f"question {row.question}; give both with --answers"
            )
        first, second = (answer for answer in pair if answer)
        styles.append(
            {
                name: (float(getattr(first, name)), float(getattr(second, name)))
                for name in ("tokens", "headers", "lists", "bold")
            }
        )
    return bradley_terry.style_controlled([row.model for row, _ in battles], [points for _, points in battles], styles)


# -- Open LLM Leaderboard ----------------------------------------------------------------------------------------------


def _averaged(model: str, tasks: Mapping[tuple[str, str, str], Sequence[TaskScore]]) -> Scored:
    last = {key: rows[-1] for key, rows in tasks.items()}
    parts: dict[str, float | None] = {}
    errors: list[float | None] = []
    notes = []
    for name, metric, filter_name in leaderboard.SIX:
        wanted = leaderboard.MMLU_TASKS if name == "mmlu" else (name,)
        rows = [row for task in wanted if (row := last.get((task, metric, filter_name)))]
        if len(rows) < len(wanted):
            parts[name] = None
            gone = sorted({*wanted} - {row.task for row in rows})
            notes.append(f"{name}: {len(rows)} of {len(wanted)} are there, {', '.join(gone[:3])} missing")
            continue
        parts[name] = 100 * sum(row.value for row in rows) / len(rows)
        known = [row.stderr for row in rows if row.stderr is not None]
        errors.append(sum(e**2 for e in known) ** 0.5 / len(rows) * 100 if len(known) == len(rows) else None)
        if note := leaderboard.NOTES.get(name):
            notes.append(f"{name}: {note}")
    there = [value for value in parts.values() if value is not None]
    score = sum(there) / len(parts) if len(there) == len(parts) else None
    sure = score is not None and None not in errors
    margin = 1.96 * sum((e or 0.0) ** 2 for e in errors) ** 0.5 / len(parts)
    return Scored(
        model=model,
        score=score,
        published=score,
        low=score - margin if sure and score is not None else None,
        high=score + margin if sure and score is not None else None,
        questions=len(parts),
        expected=len(parts),
        missing=len(parts) - len(there),
        parts=parts,
        counts={"run twice": sum(len(rows) > 1 for rows in tasks.values())},
        notes=tuple(notes),
    )


# -- all ---------------------------------------------------------------------------------------------------------------


def _flags(model: str, said: Mapping[tuple[str, Any], Answered]) -> dict[str, int]:
    """How many of a model's answers are one text for many questions, and how many hold what a verdict looks like."""
    ours = [answer for (name, _), answer in said.items() if name == model]
    first = [answer.turns[0] for answer in ours if answer.turns]
    return {
        **_alike(first),
        "answers that hold a verdict": sum(any(map(verdicts.holds_label, answer.turns)) for answer in ours),
    }


def _alike(texts: Iterable[str]) -> dict[str, int]:
    number = Counter(text.strip() for text in texts)
    most = max(1, MOST_ALIKE * number.total())
    return {"answers alike": sum(times for times in number.values() if times > most)}


def _grouped(rows: Iterable[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.model, []).append(row)
    return groups


def _mean(values: Iterable[float | None]) -> float | None:
    """Over those there are."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
