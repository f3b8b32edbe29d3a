"""From judgments to scores: the number, its interval, how much is missing, and whether its baseline differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import polars as pl

from nift_assets.benchmarks import resampling
from nift_assets.benchmarks.resampling import Difference, Sample

# Above this share of missing verdicts a score is marked incomplete (promise P11).
MOST_MISSING = 0.02


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model on one benchmark: the score, the 95% interval of a bootstrap over questions, and how complete it is.

    `published` is what the benchmark's own tool says of the same rows: it takes every label for the judge's verdict.
    `questions` counts what was resampled, `expected` the verdicts there should be and `missing` those there are not.
    `against` is the baseline row, the backbone as it is; the difference to it is paired by question, and `p_corrected`
    is corrected over the benchmark's column of the table (Holm).
    """

    model: str
    benchmark: str
    score: float | None
    published: float | None
    low: float | None
    high: float | None
    questions: int
    expected: int
    missing: int
    missing_share: float
    complete: bool
    against: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    p_corrected: float | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """A score with what it is made of: a sample of questions or, where only that is known, its standard error."""

    score: Score
    sample: Sample | None = None
    error: float | None = None


SCHEMA: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "benchmark": pl.String,
    "score": pl.Float64,
    "published": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "questions": pl.Int64,
    "expected": pl.Int64,
    "missing": pl.Int64,
    "missing_share": pl.Float64,
    "complete": pl.Boolean,
    "against": pl.String,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p": pl.Float64,
    "p_corrected": pl.Float64,
}


def table(
    mt_bench_judgments: pl.DataFrame,
    arena_hard_judgments: pl.DataFrame,
    ifeval: pl.DataFrame,
    open_llm_leaderboard: pl.DataFrame,
    against: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """One row per model × benchmark that has been run, beside the model that `against` names for it."""
    found = [
        *compared([mt_bench(str(model), rows) for (model,), rows in _by_model(mt_bench_judgments)], against or {}),
        *compared([arena_hard(str(model), rows) for (model,), rows in _by_model(arena_hard_judgments)], against or {}),
        *compared([instructions(str(model), rows) for (model,), rows in _by_model(ifeval)], against or {}),
        *compared([leaderboard(str(model), rows) for (model,), rows in _by_model(open_llm_leaderboard)], against or {}),
    ]
    return pl.DataFrame([asdict(score) for score in found], schema=SCHEMA, orient="row").sort("model", "benchmark")


def compared(measured: Sequence[Measured], against: Mapping[str, str]) -> list[Score]:
    """The scores of one benchmark, each with its difference to the model it is held against, if that was run."""
    by_model = {one.score.model: one for one in measured}
    differences = {
        name: found
        for name, one in by_model.items()
        if (other := by_model.get(against.get(name, ""))) and (found := difference(one, other))
    }
    corrected = dict(zip(differences, resampling.holm([d.p for d in differences.values()]), strict=True))
    return [
        replace(
            one.score,
            against=against[name],
            difference=differences[name].value,
            difference_low=differences[name].low,
            difference_high=differences[name].high,
            p=differences[name].p,
            p_corrected=corrected[name],
        )
        if name in differences
        else one.score
        for name, one in by_model.items()
    ]


def difference(one: Measured, other: Measured) -> Difference | None:
    """How much higher the first is: paired over the questions both have or, without questions, by standard errors."""
    if one.sample and other.sample:
        return resampling.difference(one.sample, other.sample)
    if one.score.score is None or other.score.score is None or one.error is None or other.error is None:
        return None
    questions = min(one.score.questions, other.score.questions)
    return resampling.normal(one.score.score, one.error, other.score.score, other.error, questions)


def mt_bench(model: str, judgments: pl.DataFrame) -> Measured:
    """The mean rating from 1 to 10 over all turns of all questions, averaged over the runs, as FastChat's
    `show_result` averages one run: unrated rows are left out."""
    theirs = judgments.group_by("run").agg(pl.col("published_rating").mean()).drop_nulls()["published_rating"].mean()
    parts = [
        _parts(rows, pl.col("rating").sum(), pl.col("rating").count())
        for _, rows in judgments.group_by("run", maintain_order=True)
    ]
    return _measured(
        model,
        "mt_bench",
        parts=[part for part in parts if any(weight for _, weight in part.values())] or parts[:1],
        published=theirs,
        expected=judgments.height,
        missing=judgments["rating"].null_count(),
    )


def arena_hard(model: str, judgments: pl.DataFrame) -> Measured:
    """The win rate against the baseline in percent: the weighted share of won battles, a tie being half a win.

    With one baseline this equals the maximum-likelihood Bradley-Terry rate that the published tool fits.
    """
    from nift_assets.benchmarks.arena_hard import points_of

    outcomes = [points_of(*row) for row in judgments.select("published_verdict", "game").iter_rows()]
    weight = sum(weight for _, weight in outcomes)
    theirs = 100 * sum((points or 0) * weight for points, weight in outcomes) / weight if weight else None
    return _measured(
        model,
        "arena_hard",
        parts=[_parts(judgments, (pl.col("points") * pl.col("weight") * 100).sum(), pl.col("weight").sum())],
        published=theirs,
        expected=judgments.height,
        missing=judgments["points"].null_count(),
    )


def instructions(model: str, ifeval: pl.DataFrame) -> Measured:
    """The mean of prompt-level and instruction-level strict accuracy in percent (protocol of Table 7)."""
    rows = list(
        ifeval.select("key", "prompt_strict", "instructions_followed_strict", "instructions").iter_rows(named=True)
    )
    parts = [
        {row["key"]: (100.0 * row["prompt_strict"], 1.0) for row in rows},
        {row["key"]: (100.0 * row["instructions_followed_strict"], float(row["instructions"])) for row in rows},
    ]
    return _measured(model, "ifeval", parts=parts, expected=ifeval.height, missing=0)


def leaderboard(model: str, tasks: pl.DataFrame) -> Measured:
    """The plain mean of the tasks' scores in percent, with an interval from their standard errors if all have one, as
    far as it lies on the scale."""
    score = tasks["score"].mean()
    assert isinstance(score, float)
    known = tasks["stderr"].null_count() == 0
    error = float((tasks["stderr"] ** 2).sum()) ** 0.5 / tasks.height
    found = Score(
        model=model,
        benchmark="open_llm_leaderboard",
        score=score,
        published=score,
        low=max(0.0, score - 1.96 * error) if known else None,
        high=min(100.0, score + 1.96 * error) if known else None,
        questions=int(tasks["samples"].sum()),
        expected=tasks.height,
        missing=0,
        missing_share=0.0,
        complete=True,
    )
    return Measured(found, error=error if known else None)


Part = Mapping[object, tuple[float, float]]


def _by_model(frame: pl.DataFrame) -> Iterable[tuple[tuple[object, ...], pl.DataFrame]]:
    return frame.group_by("model", maintain_order=True)


def _parts(rows: pl.DataFrame, points: pl.Expr, weight: pl.Expr) -> Part:
    by_question = rows.group_by("question_id", maintain_order=True).agg(points.alias("points"), weight.alias("weight"))
    return {question: (points or 0.0, float(weight)) for question, points, weight in by_question.iter_rows()}


def _measured(
    model: str, benchmark: str, *, parts: Sequence[Part], expected: int, missing: int, published: object = None
) -> Measured:
    sample = resampling.sample(parts)
    score = sample.score()
    low, high = resampling.interval(sample)
    assert published is None or isinstance(published, float)
    found = Score(
        model=model,
        benchmark=benchmark,
        score=score,
        published=score if benchmark == "ifeval" else published,
        low=low,
        high=high,
        questions=len(sample.questions),
        expected=expected,
        missing=missing,
        missing_share=missing / expected,
        complete=missing <= MOST_MISSING * expected,
    )
    return Measured(found, sample)
