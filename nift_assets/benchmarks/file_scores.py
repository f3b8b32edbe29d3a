"""Scores of files that other tools wrote: what the benchmark's own tool says of them, and what they are worth.

`published` is the tool's own arithmetic on all there is in a file, to the last digit. `score` is the same arithmetic
over what counts: each verdict once, on its scale, and the judge's own. In a sound file the two are one number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Generic, TypeVar

from nift_assets.benchmarks import bradley_terry, published, readings, resampling
from nift_assets.benchmarks.arena_hard import GAMES
from nift_assets.benchmarks.published import Answered, Battle, Game, Judged, TaskScore
from nift_assets.benchmarks.readings import Outcome, Rating, Said
from nift_assets.benchmarks.resampling import Sample
from nift_assets.benchmarks.scores import MOST_MISSING
from nift_training.evaluate import leaderboard

# Of the published benchmarks, where no file says: two turns of 80 questions, two games of 500.
TURNS, MT_BENCH_QUESTIONS, ARENA_HARD_QUESTIONS = 2, 80, 500
ANOTHER = "duplicates of another answer"
OTHER_ANSWERS = "more than one answer to a question was judged: the first counts, unless --answers say which one it is"

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Row = TypeVar("Row", Rating, Outcome)


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
    difference: resampling.Difference
    corrected: float


def mt_bench(
    judgments: Iterable[Judged], answers: Iterable[Answered] = (), questions: Sequence[Any] | None = None
) -> list[Scored]:
    """One score per model, with several judges per model and judge: the mean over its runs. A file is a run; one that
    has nothing another has is part of the same run."""
    said, known = Said(answers), _identities(questions)
    ratings = [readings.rating(row, said) for row in judgments]
    return [_rated(name, rows, said, known) for name, rows in _named(ratings).items()]


def arena_hard(
    rows: Iterable[Game | Battle],
    answers: Iterable[Answered] = (),
    questions: Sequence[Any] | None = None,
    *,
    baseline: str = "gpt-4-0314",
    style: bool = False,
) -> list[Scored]:
    """One win rate per model, with several judges per model and judge. With `style` also the one that is controlled for
    style, for which both answers to every question must be there."""
    said, known = Said(answers), _identities(questions)
    outcomes = [readings.outcome(row, said, baseline) for row in rows]
    rates: dict[tuple[str, str], bradley_terry.Rate] = {}
    controlled: dict[tuple[str, str], float] = {}
    for judge, ruled in _grouped(outcomes, lambda one: one.judge).items():
        battles = [(one, one.theirs[0]) for one in ruled if one.theirs for _ in range(one.theirs[1])]
        models, points = [one.model for one, _ in battles], [won for _, won in battles]
        rates |= {(judge, rate.model): rate for rate in (bradley_terry.rates(models, points) if battles else ())}
        if style and battles:
            styles = [_styles(one, said) for one, _ in battles]
            found = bradley_terry.style_controlled(models, points, styles)
            controlled |= {(judge, model): rate for model, rate in found.items()}
    if not rates:
        raise ValueError("there is no verdict that counts in these files; give files of Arena-Hard judgments")
    return [
        _ruled(
            name,
            its,
            said,
            known,
            rates.get((its[0].judge, its[0].model)),
            controlled.get((its[0].judge, its[0].model)),
        )
        for name, its in _named(outcomes).items()
    ]


def ifeval(responses: Mapping[str, Mapping[str, str]], prompts: Sequence[Mapping[str, Any]]) -> list[Scored]:
    """The four accuracies of each model and the mean of the two strict ones, over the prompts it has responded to."""
    from nift_training.evaluate import ifeval as checker

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
        sample = resampling.sample(
            [
                {key: (100.0 * all(followed), 1.0) for key, followed in strict.items()},
                {key: (100.0 * sum(followed), float(len(followed))) for key, followed in strict.items()},
            ]
        )
        low, high = resampling.interval(sample)
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
                    **readings.alike([readings.mark(text) for text in said.values()]),
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
        if one.sample and other.sample and (difference := resampling.difference(one.sample, other.sample))
    ]
    corrected = resampling.holm([difference.p for _, _, difference in pairs])
    return [
        Compared(one=one, other=other, difference=difference, corrected=p)
        for (one, other, difference), p in zip(pairs, corrected, strict=True)
    ]


def questions_of(path: Path) -> list[str]:
    """The questions of a benchmark's file, by their ids."""
    return [published.identity(row.get("question_id", row.get("uid"))) for _, _, _, row in published.lines([path])]


# -- MT-Bench ----------------------------------------------------------------------------------------------------------


def _rated(name: str, rows: Sequence[Rating], said: Said, known: set[str] | None) -> Scored:
    runs = [_once(run) for run in _runs(rows)]
    counts = Counter(row.reading for row in rows if row.reading != "verdict")
    counts += sum((run.counts for run in runs), Counter())
    counts["of no question"] = sum(known is not None and row.question not in known for row in rows)
    kept = [{p: one.rating for p, one in run.kept.items() if known is None or p[0] in known} for run in runs]
    theirs = [[row.theirs for row in run.rows if row.theirs is not None and row.theirs != -1] for run in runs]
    expected = len(runs) * TURNS * (MT_BENCH_QUESTIONS if known is None else len(known))
    sample = resampling.sample([_turns_together(run) for run in kept])
    counted = sum(rating is not None for run in kept for rating in run.values())
    low, high = resampling.interval(sample)
    return Scored(
        model=name,
        score=sample.score(),
        published=_mean(map(_mean, theirs)),
        low=low,
        high=high,
        questions=len(sample.questions),
        expected=max(expected, counted),
        missing=max(expected - counted, 0),
        parts={f"turn {turn}": _mean(_of_turn(kept, turn)) for turn in (1, 2)},
        counts={**counts, "runs": len(runs), **said.flags(rows[0].model)},
        notes=(OTHER_ANSWERS,) if counts[ANOTHER] and not said.has(rows[0].model) else (),
        sample=sample,
    )


def _runs(rows: Sequence[Rating]) -> list[list[Rating]]:
    """The rows of each run: those of a file, together with those of files that have other questions or turns."""
    runs: list[tuple[set[tuple[str, int]], list[Rating]]] = []
    for of_file in _grouped(rows, lambda row: row.source).values():
        places = {(row.question, row.turn) for row in of_file}
        run = next((run for run in runs if not run[0] & places), None)
        if run is None:
            runs.append((places, of_file))
        else:
            run[0].update(places)
            run[1].extend(of_file)
    return [run for _, run in runs]


def _turns_together(seen: Mapping[tuple[str, int], float | None]) -> dict[str, tuple[float, float]]:
    together: dict[str, tuple[float, float]] = {}
    for (question, _), rating in seen.items():
        points, weight = together.get(question, (0.0, 0.0))
        together[question] = (points, weight) if rating is None else (points + rating, weight + 1)
    return together


def _of_turn(runs: Sequence[Mapping[tuple[str, int], float | None]], turn: int) -> list[float | None]:
    return [_mean(rating for (_, t), rating in seen.items() if t == turn) for seen in runs]


# -- Arena-Hard --------------------------------------------------------------------------------------------------------


def _ruled(
    name: str,
    rows: Sequence[Outcome],
    said: Said,
    known: set[str] | None,
    rate: bradley_terry.Rate | None,
    controlled: float | None,
) -> Scored:
    model, raw = rows[0].model, any(row.game for row in rows)
    once = _once(rows)
    counts = Counter(row.reading for row in rows if row.reading != "verdict") + once.counts
    counts["of no question"] = sum(known is not None and row.question not in known for row in rows)
    kept = [one for one in once.kept.values() if known is None or one.question in known]
    together: dict[str, tuple[float, float]] = {}
    for one in kept:
        won, played = together.get(one.question, (0.0, 0.0))
        together[one.question] = (won + 100 * (one.points or 0.0) * one.weight, played + one.weight)
    sample = resampling.sample([together])
    low, high = resampling.interval(sample)
    number = ARENA_HARD_QUESTIONS if known is None else len(known)
    expected = len(GAMES) * number if raw else number
    found = sum(one.points is not None for one in kept) if raw else len(together)
    tokens = said.tokens(model)
    # A file of battles has no line where a verdict is missing, so only whole questions are seen to be.
    notes = () if raw else ("battles: missing games cannot be seen, only missing questions",)
    against = sorted({row.baseline for row in rows})
    return Scored(
        model=name,
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
        counts={**counts, "battles": rate.battles if rate else 0, **said.flags(model)},
        sample=sample,
        notes=(*notes, f"against several baselines: {', '.join(against)}") if len(against) > 1 else notes,
    )


def _styles(one: Outcome, said: Said) -> dict[str, tuple[float, float]]:
    """What the baseline's and the model's answer have of each element of style."""
    pair = [said.files.get((name, one.question)) for name in (one.baseline, one.model)]
    first, second = (answer if answer and answer.tokens is not None else None for answer in pair)
    if first is None or second is None:
        raise ValueError(
            f"style control needs the answers, with their tokens, of {one.model} and {one.baseline} to question "
            f"{one.question}; give both with --answers"
        )
    elements = ("tokens", "headers", "lists", "bold")
    return {name: (float(getattr(first, name)), float(getattr(second, name))) for name in elements}


# -- each verdict once -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Once(Generic[Row]):
    """The row that counts for each place, all rows, and what was left out by kind."""

    kept: dict[tuple[str, int], Row]
    rows: Sequence[Row]
    counts: Counter[str]


def _once(rows: Sequence[Row]) -> _Once[Row]:
    """Each place's first row, unless a later one is about the answer that is in the files or is the first to count."""
    kept: dict[tuple[str, int], Row] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        place = row.place or (row.question, -len(kept))  # of a battle it is not said which game it was
        first = kept.setdefault(place, row)
        if first is row:
            continue
        counts["duplicates"] += 1
        counts[ANOTHER] += row.shown != first.shown
        if (row.of_files, row.counts) > (first.of_files, first.counts):
            kept[place] = row
    return _Once(kept, rows, counts)


def _named(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each model, under its name; with several judges, those of each model and judge."""
    several = len({row.judge for row in rows}) > 1
    return _grouped(rows, lambda row: f"{row.model} (judge {row.judge or 'unnamed'})" if several else row.model)


# -- Open LLM Leaderboard ----------------------------------------------------------------------------------------------


def _averaged(model: str, tasks: Mapping[tuple[str, str, str], Sequence[TaskScore]]) -> Scored:
    parts: dict[str, float | None] = {}
    errors: list[float | None] = []
    notes: list[str] = []
    twice = 0
    for name, metric, filter_name in leaderboard.SIX:
        wanted = leaderboard.MMLU_TASKS if name == leaderboard.MMLU else (name,)
        runs = [tasks[key] for task in wanted if (key := (task, metric, filter_name)) in tasks]
        rows = [_counting(each, leaderboard.SHOTS[name]) for each in runs]
        twice += sum(len(each) > 1 for each in runs)
        missing = {*wanted} - {row.task for row in rows if not math.isnan(row.value)}
        notes += [f"{name}: {note}" for note in _about(runs, rows, leaderboard.SHOTS[name])]
        if missing:
            parts[name] = None
            gone = ", ".join(sorted(missing)[:3])
            notes.append(f"{name}: {len(wanted) - len(missing)} of {len(wanted)} are there, {gone} missing")
            continue
        parts[name] = 100 * math.fsum(row.value for row in rows) / len(rows)
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
        low=max(0.0, score - margin) if sure and score is not None else None,
        high=min(100.0, score + margin) if sure and score is not None else None,
        questions=len(there),
        expected=len(parts),
        missing=len(parts) - len(there),
        parts=parts,
        counts={"run twice": twice},
        notes=tuple(notes),
    )


def _counting(runs: Sequence[TaskScore], shots: int) -> TaskScore:
    """The run of a task that counts: the last by name of those with the leaderboard's examples, else the last."""
    return next((row for row in reversed(runs) if row.shots in (shots, None)), runs[-1])


def _about(runs: Sequence[Sequence[TaskScore]], rows: Sequence[TaskScore], shots: int) -> Iterator[str]:
    """What must be known of the runs that count: which they are, what they were shown, how much they were asked."""
    if unlike := {row.source for each, row in zip(runs, rows, strict=True) if len({one.value for one in each}) > 1}:
        yield f"run more than once with different results, counted is {', '.join(sorted(unlike)[:3])}"
    if others := sorted({row.shots for row in rows if row.shots not in (shots, None)}):
        yield f"{', '.join(map(str, others))} examples in its prompts, not the leaderboard's {shots}"
    if part := [row.asked for row in rows if row.asked and row.asked[0] < row.asked[1]]:
        yield f"only {sum(asked for asked, _ in part)} of {sum(there for _, there in part)} samples were asked"
    if nan := [row.task for row in rows if math.isnan(row.value)]:
        yield f"{', '.join(nan[:3])} is NaN"


# -- all ---------------------------------------------------------------------------------------------------------------


def _grouped(rows: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    return groups


def _identities(questions: Sequence[Any] | None) -> set[str] | None:
    return None if questions is None else {published.identity(question) for question in questions}


def _mean(values: Iterable[float | None]) -> float | None:
    """Over those there are, rounded once."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None
