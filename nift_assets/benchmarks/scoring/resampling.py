"""How sure a score is, and whether two scores differ: resampling over questions, which are what a benchmark draws.

Turns, games and runs of one question stay together, since one hard question is hard every time it is asked.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

RESAMPLES = 1_000
PERMUTATIONS = 10_000
SEED = 42
LEVEL = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class QuestionPoints:
    """What a score is made of: points and weights per question, in one or several parts (part × question).

    The score is the mean over the parts of points per weight: the runs of MT-Bench, the two accuracies of IFEval.
    """

    questions: tuple[Hashable, ...]
    points: Array
    weights: Array

    def score(self) -> float | None:
        """None where a part has no weight at all: nothing in it counts."""
        total = self.weights.sum(axis=1)
        return float((self.points.sum(axis=1) / total).mean()) if len(total) and (total > 0).all() else None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher the first score is on the questions both have, its 95% interval, and how probable a difference
    so large would be if the two were alike."""

    value: float
    low: float
    high: float
    p: float
    questions: int


def sample(parts: Sequence[Mapping[Any, tuple[float, float]]]) -> QuestionPoints:
    """The sample of parts that map a question to its points and weight; a question a part lacks weighs nothing."""
    import numpy as np

    questions = tuple(dict.fromkeys(question for part in parts for question in part))
    shape = (len(parts), len(questions), 2)
    values = np.array([part.get(question, (0.0, 0.0)) for part in parts for question in questions], dtype=float)
    values = values.reshape(shape)
    return QuestionPoints(questions, values[:, :, 0], values[:, :, 1])


def interval(measured: QuestionPoints) -> tuple[float | None, float | None]:
    """The middle 95% of the score when as many questions are drawn again, with replacement, a thousand times."""
    import numpy as np

    if not measured.questions:
        return None, None
    resampled = _resampled(measured)
    if np.isnan(resampled).all():
        return None, None
    low, high = np.nanpercentile(resampled, LEVEL)
    return float(low), float(high)


def difference(first: QuestionPoints, second: QuestionPoints) -> Difference | None:
    """The paired difference of two scores: a bootstrap over the questions both have, and a permutation test in which
    the two change their names question by question. None without a common question that counts for both."""
    import numpy as np

    common = tuple(sorted(set(first.questions) & set(second.questions), key=str))
    if not common:
        return None
    a, b = _aligned(first, common), _aligned(second, common)
    if len(a.points) != len(b.points):  # not as many runs: each is pooled
        a, b = _pooled(a), _pooled(b)
    left, right = a.score(), b.score()
    if left is None or right is None:
        return None
    resampled = _resampled(a) - _resampled(b)
    low, high = np.nanpercentile(resampled, LEVEL)
    return Difference(
        value=left - right,
        low=float(low),
        high=float(high),
        p=_permuted(a, b, abs(left - right)),
        questions=len(common),
    )


def normal(first: float, first_error: float, second: float, second_error: float, questions: int) -> Difference:
    """The difference of two scores of which only the standard errors are known, taken as independent."""
    value, error = first - second, math.hypot(first_error, second_error)
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    return Difference(value=value, low=value - 1.96 * error, high=value + 1.96 * error, p=p, questions=questions)


def holm(values: Sequence[float]) -> list[float]:
    """The p-values corrected over the table they stand in (Holm 1979): one in twenty tables shows a difference that
    is none, not one in twenty comparisons."""
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = highest
    return corrected


def draws(clusters: int) -> Array:
    """How often each cluster is drawn in each of a thousand resamples, the same ones every time."""
    return _draws(clusters)


@lru_cache(maxsize=8)
def _draws(questions: int) -> Array:
    """How often each question is drawn in each resample."""
    import numpy as np

    drawn = np.random.default_rng(SEED).integers(0, questions, size=(RESAMPLES, questions))
    drawn += np.arange(RESAMPLES)[:, None] * questions
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * questions).reshape(RESAMPLES, questions)
    return np.asarray(counts, dtype=np.float64)


@lru_cache(maxsize=4)
def _signs(questions: int) -> Array:
    import numpy as np

    drawn = np.random.default_rng(SEED).integers(0, 2, size=(PERMUTATIONS, questions))
    return np.asarray(drawn * 2 - 1, dtype=np.float64)


# A table of many models compares every pair of them: what one sample comes to is worked out once.
@lru_cache(maxsize=256)
def _resampled(measured: QuestionPoints) -> Array:
    """One score per resample, NaN where a part drew nothing that counts."""
    draws = _draws(len(measured.questions))
    return _ratio(draws @ measured.points.T, draws @ measured.weights.T)


@lru_cache(maxsize=256)
def _signed(measured: QuestionPoints) -> tuple[Array, Array]:
    """The points and weights of each part in every permutation, summed with the signs of the questions."""
    signs = _signs(len(measured.questions))
    return signs @ measured.points.T, signs @ measured.weights.T


def _ratio(points: Array, weights: Array) -> Array:
    import numpy as np

    ratios = np.divide(points, weights, out=np.full(points.shape, np.nan), where=weights > 1e-9)
    mean: Array = ratios.mean(axis=1)
    return mean


def _permuted(a: QuestionPoints, b: QuestionPoints, observed: float) -> float:
    """The share of permutations, itself included, that differ at least as much."""
    import numpy as np

    def swapped(one: Array, other: Array, one_signed: Array, other_signed: Array) -> tuple[Array, Array]:
        together, apart = (one + other).sum(axis=1), one_signed - other_signed
        return (together + apart) / 2, (together - apart) / 2

    (signed_a, weighed_a), (signed_b, weighed_b) = _signed(a), _signed(b)
    points_a, points_b = swapped(a.points, b.points, signed_a, signed_b)
    weights_a, weights_b = swapped(a.weights, b.weights, weighed_a, weighed_b)
    differences = _ratio(points_a, weights_a) - _ratio(points_b, weights_b)
    as_large = np.count_nonzero(np.abs(differences) >= observed - 1e-9)
    return float((1 + as_large) / (1 + PERMUTATIONS))


@lru_cache(maxsize=256)
def _aligned(measured: QuestionPoints, questions: tuple[Hashable, ...]) -> QuestionPoints:
    places = {question: place for place, question in enumerate(measured.questions)}
    chosen = [places[question] for question in questions]
    return QuestionPoints(questions, measured.points[:, chosen], measured.weights[:, chosen])


@lru_cache(maxsize=256)
def _pooled(measured: QuestionPoints) -> QuestionPoints:
    return QuestionPoints(
        measured.questions,
        measured.points.sum(axis=0, keepdims=True),
        measured.weights.sum(axis=0, keepdims=True),
    )
