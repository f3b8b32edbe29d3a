"""From judgments to scores: the number the benchmark's own tool prints, its interval and how much is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import polars as pl

RESAMPLES = 1_000
SEED = 42

# Above this share of missing verdicts a score is marked incomplete (promise P11).
MOST_MISSING = 0.02


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model on one benchmark: the score, the 95% interval of a bootstrap over questions, and how complete it is.

    `questions` counts what was resampled, `expected` the verdicts there should be and `missing` those there are not.
    """

    model: str
    benchmark: str
    score: float | None
    low: float | None
    high: float | None
    questions: int
    expected: int
    missing: int
    complete: bool


def table(
    mt_bench_judgments: pl.DataFrame,
    arena_hard_judgments: pl.DataFrame,
    ifeval: pl.DataFrame,
    open_llm_leaderboard: pl.DataFrame,
) -> pl.DataFrame:
    """One row per model × benchmark that has been run."""
    found = [
        *(mt_bench(str(model), rows) for (model,), rows in _by_model(mt_bench_judgments)),
        *(arena_hard(str(model), rows) for (model,), rows in _by_model(arena_hard_judgments)),
        *(instructions(str(model), rows) for (model,), rows in _by_model(ifeval)),
        *(leaderboard(str(model), rows) for (model,), rows in _by_model(open_llm_leaderboard)),
    ]
    schema = {
        "model": pl.String,
        "benchmark": pl.String,
        "score": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "questions": pl.Int64,
        "expected": pl.Int64,
        "missing": pl.Int64,
        "complete": pl.Boolean,
    }
    return pl.DataFrame([asdict(score) for score in found], schema=schema, orient="row").sort("model", "benchmark")


def mt_bench(model: str, judgments: pl.DataFrame) -> Score:
    """The mean rating from 1 to 10 over all turns of all questions, averaged over the runs, as FastChat's
    `show_result` averages one run: unrated rows are left out."""
    per_run = judgments.group_by("run").agg(pl.col("rating").mean()).drop_nulls()
    by_question = judgments.group_by("question_id", maintain_order=True).agg(
        pl.col("rating").sum().alias("points"), pl.col("rating").count().alias("weight")
    )
    return _score(
        model,
        "mt_bench",
        score=per_run["rating"].mean(),
        parts=[(by_question["points"], by_question["weight"])],
        expected=judgments.height,
        missing=judgments["rating"].null_count(),
    )


def arena_hard(model: str, judgments: pl.DataFrame) -> Score:
    """The win rate against the baseline in percent: the weighted share of won battles, a tie being half a win.

    With one baseline this equals the maximum-likelihood Bradley-Terry rate that the published tool fits.
    """
    by_question = judgments.group_by("question_id", maintain_order=True).agg(
        (pl.col("points") * pl.col("weight") * 100).sum().alias("points"), pl.col("weight").sum()
    )
    parts = [(by_question["points"], by_question["weight"])]
    return _score(
        model,
        "arena_hard",
        score=_ratio(parts),
        parts=parts,
        expected=judgments.height,
        missing=judgments["points"].null_count(),
    )


def instructions(model: str, ifeval: pl.DataFrame) -> Score:
    """The mean of prompt-level and instruction-level strict accuracy in percent (protocol of Table 7)."""
    parts = [
        (ifeval["prompt_strict"].cast(pl.Float64) * 100, pl.Series([1] * ifeval.height)),
        (ifeval["instructions_followed_strict"].cast(pl.Float64) * 100, ifeval["instructions"]),
    ]
    return _score(model, "ifeval", score=_ratio(parts), parts=parts, expected=ifeval.height, missing=0)


def leaderboard(model: str, tasks: pl.DataFrame) -> Score:
    """The plain mean of the tasks' scores in percent, with an interval from their standard errors if all have one."""
    score = tasks["score"].mean()
    assert isinstance(score, float)
    known = tasks["stderr"].null_count() == 0
    margin = 1.96 * float((tasks["stderr"] ** 2).sum()) ** 0.5 / tasks.height
    return Score(
        model=model,
        benchmark="open_llm_leaderboard",
        score=score,
        low=score - margin if known else None,
        high=score + margin if known else None,
        questions=int(tasks["samples"].sum()),
        expected=tasks.height,
        missing=0,
        complete=True,
    )


Parts = Sequence[tuple[pl.Series, pl.Series]]


def _by_model(frame: pl.DataFrame) -> Iterable[tuple[tuple[object, ...], pl.DataFrame]]:
    return frame.group_by("model", maintain_order=True)


def _score(model: str, benchmark: str, *, score: object, parts: Parts, expected: int, missing: int) -> Score:
    low, high = _interval(parts)
    assert score is None or isinstance(score, float)
    return Score(
        model=model,
        benchmark=benchmark,
        score=score,
        low=low,
        high=high,
        questions=len(parts[0][0]),
        expected=expected,
        missing=missing,
        complete=missing <= MOST_MISSING * expected,
    )


def _ratio(parts: Parts) -> float | None:
    """The mean over the parts of points per weight, each summed over questions; None where nothing was weighed."""
    ratios = [float(points.sum()) / float(weight.sum()) for points, weight in parts if weight.sum()]
    return sum(ratios) / len(ratios) if len(ratios) == len(parts) else None


def _interval(parts: Parts) -> tuple[float | None, float | None]:
    """The middle 95% of the ratio when as many questions are drawn again, with replacement, a thousand times."""
    import numpy as np

    questions = len(parts[0][0])
    drawn = np.random.default_rng(SEED).integers(0, questions, size=(RESAMPLES, questions))
    ratios = []
    for points, weight in parts:
        totals = weight.to_numpy()[drawn].sum(axis=1)
        sums = points.fill_null(0).to_numpy()[drawn].sum(axis=1)
        # A draw of unrated questions alone has no score.
        ratios.append(np.divide(sums, totals, out=np.full(RESAMPLES, np.nan), where=totals > 0))
    resampled = np.mean(ratios, axis=0)
    if np.isnan(resampled).all():
        return None, None
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(low), float(high)
