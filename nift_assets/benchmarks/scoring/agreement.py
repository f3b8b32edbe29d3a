"""How far two or more raters agree, beside what chance would have them agree on: Cohen's kappa, Krippendorff's alpha.

Both are exact: kappa as in Cohen (1960), alpha for nominal data as in Krippendorff (2011), which takes any number of
raters and leaves out what one alone has rated. The intervals are of a bootstrap over clusters, documents or questions,
whose ratings stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from nift_assets.benchmarks.scoring import resampling

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far raters agree on the rows that they have both rated, with 95% intervals.

    `share` is the share of rows on which they agree, of several raters that of pairs of ratings. `value` is kappa or
    alpha: 1 where they always agree, 0 where they do as often as chance, None where all ratings are one label, so that
    chance would agree as well. There are no intervals of a single cluster.
    """

    rows: int
    clusters: int
    agreed: int
    share: float
    share_low: float | None
    share_high: float | None
    value: float | None
    low: float | None
    high: float | None


def kappa(rated: Sequence[tuple[Hashable, str, str]]) -> Agreement | None:
    """Cohen's kappa of two raters over (cluster, label of the one, label of the other); None without a row."""
    counts = [(cluster, one, other, 1.0) for cluster, one, other in rated]
    return _agreement(counts, len(rated), sum(one == other for _, one, other in rated), _kappa)


def alpha(rated: Iterable[tuple[Hashable, Sequence[str]]]) -> Agreement | None:
    """Krippendorff's alpha over (cluster, the labels that a row was given); None without a row that two have rated."""
    units = [(cluster, labels) for cluster, labels in rated if len(labels) > 1]
    counts = [
        (cluster, one, other, 1 / (len(labels) - 1))
        for cluster, labels in units
        for one, other in permutations(labels, 2)
    ]
    return _agreement(counts, len(units), sum(len({*labels}) == 1 for _, labels in units), _alpha)


def _agreement(
    counts: Sequence[tuple[Hashable, str, str, float]],
    rows: int,
    agreed: int,
    chance_corrected: Callable[[Array], Array],
) -> Agreement | None:
    import numpy as np

    if not counts:
        return None
    labels = _places(label for _, one, other, _ in counts for label in (one, other))
    clusters = _places(cluster for cluster, *_ in counts)
    met = np.zeros((len(clusters), len(labels), len(labels)))
    for cluster, one, other, weight in counts:
        met[clusters[cluster], labels[one], labels[other]] += weight
    share, share_low, share_high = _estimate(met, _share)
    value, low, high = _estimate(met, chance_corrected)
    assert share is not None, "there is a row, so there is a share"
    return Agreement(
        rows=rows,
        clusters=len(clusters),
        agreed=agreed,
        share=share,
        share_low=share_low,
        share_high=share_high,
        value=value,
        low=low,
        high=high,
    )


def _places(values: Iterable[Hashable]) -> Mapping[Hashable, int]:
    return {value: place for place, value in enumerate(dict.fromkeys(values))}


def _estimate(met: Array, statistic: Callable[[Array], Array]) -> tuple[float | None, float | None, float | None]:
    """A statistic of all clusters together, and the middle 95% of it when as many are drawn again."""
    import numpy as np

    value = float(statistic(met.sum(axis=0, keepdims=True))[0])
    drawn = resampling.draws(len(met)) @ met.reshape(len(met), -1)
    resampled = statistic(drawn.reshape(-1, *met.shape[1:]))
    if np.isnan(value):
        return None, None, None
    if len(met) < 2 or np.isnan(resampled).all():
        return value, None, None
    low, high = np.nanpercentile(resampled, resampling.LEVEL)
    return value, float(low), float(high)


def _share(met: Array) -> Array:
    import numpy as np

    shares: Array = np.trace(met, axis1=1, axis2=2) / met.sum(axis=(1, 2))
    return shares


def _kappa(met: Array) -> Array:
    total = met.sum(axis=(1, 2))
    return _corrected(_share(met), (met.sum(axis=1) * met.sum(axis=2)).sum(axis=1), total * total)


def _alpha(met: Array) -> Array:
    total, each = met.sum(axis=(1, 2)), met.sum(axis=1)
    return _corrected(_share(met), (each * (each - 1)).sum(axis=1), total * (total - 1))


def _corrected(share: Array, expected: Array, most: Array) -> Array:
    """(share - chance) / (1 - chance), where chance is `expected` of `most`; NaN where that is all."""
    import numpy as np

    left = most - expected
    corrected: Array = np.divide(share * most - expected, left, out=np.full(share.shape, np.nan), where=left > 1e-9)
    return corrected + 0.0  # which makes of -0.0 the number that a person would write
