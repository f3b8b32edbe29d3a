"""The win rate of Arena-Hard as its own tool works it out: a Bradley-Terry fit, its bootstrap, and style control.

The rules are those of arena-hard-auto's `show_result.py` at b88a301 and, for style control, of its `utils_math.py` at
561534a. Every battle is against one baseline, so the fit equals the closed form, the weighted share of battles won.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

ROUNDS = 100
SEED = 42
STEPS = 100
GRADIENT = 1e-8


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A model's win rate in percent as the tool prints it, unrounded, with its interval and the closed form."""

    model: str
    rate: float
    low: float
    high: float
    closed_form: float
    battles: int


def rates(models: Sequence[str], wins: Sequence[float], rounds: int = ROUNDS) -> list[Rate]:
    """One rate per model, in the order they first appear in. `models` names each battle's model, `wins` says whether
    it won against the baseline (1), tied (0.5) or lost; a battle of weight 3 is there three times, as in the tool.

    All models' battles are drawn anew together, and with the tool's own generator: so are its intervals repeated.
    """
    import numpy as np

    names = list(dict.fromkeys(models))
    number = {name: place for place, name in enumerate(names)}
    of = np.array([number[model] for model in models], dtype=np.int64)
    won = np.array(wins, dtype=float)
    total, points = _counts(of, won, len(names))  # of each model
    drawn = np.random.RandomState(SEED)
    # Percentiles are taken of the ratings and made win rates afterwards.
    resampled = []
    for _ in range(rounds):
        places = drawn.randint(0, len(of), size=len(of))
        resampled.append(_ratings(*_counts(of[places], won[places], len(names))))
    low, high = (_rate(ends) for ends in np.nanpercentile(resampled, [2.5, 97.5], axis=0))
    fitted = _rate(_ratings(total, points))
    return [
        Rate(
            model=name,
            rate=float(fitted[place]),
            low=float(low[place]),
            high=float(high[place]),
            closed_form=float(100 * points[place] / total[place]),
            battles=int(total[place]),
        )
        for place, name in enumerate(names)
    ]


def style_controlled(
    models: Sequence[str], wins: Sequence[float], styles: Sequence[Mapping[str, tuple[float, float]]]
) -> dict[str, float]:
    """The win rate of each model in percent with the effect of style taken out: of length, headers, lists and bold.

    `styles` gives for each battle what the baseline's and the model's answer have of each. Later than the paper, and
    regularised as scikit-learn does by default.
    """
    import numpy as np

    names = list(dict.fromkeys(models))
    number = {name: place for place, name in enumerate(names, start=1)}  # 0 is the baseline
    elements = list(styles[0])
    pairs = np.array([[style[element] for element in elements] for style in styles], dtype=float)
    differ = (pairs[:, :, 0] - pairs[:, :, 1]) / (pairs.sum(axis=2) + 1)
    spread = differ.std(axis=0)
    differ = (differ - differ.mean(axis=0)) / np.where(spread > 0, spread, 1)
    features = np.zeros((len(models), 1 + len(names)))
    features[:, 0] = math.log(10)
    features[np.arange(len(models)), [number[model] for model in models]] = -math.log(10)
    features = np.hstack([features, differ])
    # A battle counts twice; a tie is one win of each.
    weights = logistic(features, 1 - np.array(wins, dtype=float), count=2.0, penalty=1.0)
    return {name: float(_rate((weights[number[name]] - weights[0]) * math.log(10))) for name in names}


def _counts(of: npt.NDArray[np.int64], won: Array, models: int) -> tuple[Array, ...]:
    import numpy as np

    ones = np.ones(len(of))
    return tuple(np.bincount(of, weights=weights, minlength=models).astype(np.float64) for weights in (ones, won))


def _ratings(total: Array, points: Array) -> Array:
    """The log-odds of a win over the baseline that make the counted battles most likely, by Newton's method.

    Without a win, or a loss, there is no largest likelihood: like the tool's solver this one then stops where the
    likelihood is flat. NaN for a model none of whose battles was drawn.
    """
    import numpy as np

    ratings = np.zeros(len(total))
    battles = total.sum()
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(-ratings))
        gradient = points - total * expected
        if np.abs(gradient).max() <= GRADIENT * battles:
            break
        curvature = total * expected * (1 - expected)
        ratings += np.clip(gradient / np.maximum(curvature, 1e-12), -1, 1)
    return np.where(total > 0, ratings, np.nan)


def _rate(ratings: Array) -> Array:
    import numpy as np

    return np.asarray(100 / (1 + np.exp(-ratings)))


def logistic(features: Array, targets: Array, *, count: float, penalty: float) -> Array:
    """The weights of a logistic regression without intercept: each row counts so often, the squares are penalised."""
    import numpy as np

    weights = np.zeros(features.shape[1])
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(-features @ weights))
        gradient = count * features.T @ (targets - expected) - penalty * weights
        if np.abs(gradient).max() < GRADIENT:
            break
        curvature = (features * (count * expected * (1 - expected))[:, None]).T @ features
        weights += np.linalg.solve(curvature + penalty * np.eye(len(weights)), gradient)
    return weights
