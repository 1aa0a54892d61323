"""Two samples compared: population stability index, Kolmogorov-Smirnov test, shift, and directions of many measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

MAX_BINS: Final = 10
IMAGES_A_BIN: Final = 5
"""Images that a bin should hold at least; fewer make the population stability index a matter of chance."""
_PRIOR: Final = 0.5
"""Added to the count of each bin, so that an empty bin has no infinite index."""


@dataclass(frozen=True)
class Difference:
    """Result of a comparison.

    Attributes:
        psi: Population stability index; 0 for equal distributions, above 0.25 for a major change.
        chance_psi: Index that equal distributions exceed with the probability that was asked for.
        ks: Kolmogorov-Smirnov statistic: largest difference of the distribution functions, 0 to 1.
        p_value: Its exact probability for equal distributions.
        shift: Wasserstein distance: mean distance that a value moves, in the unit of the measure.
    """

    psi: float
    chance_psi: float
    ks: float
    p_value: float
    shift: float


def compare(reference: Values, current: Values, *, probability: float) -> Difference:
    """Compares two samples of a measure.

    Args:
        reference: M finite values, M at least 1.
        current: N finite values, N at least 1.
        probability: Probability of a false finding, above 0 and below 1; sets `chance_psi`.

    Raises:
        ValueError: A sample is empty.
    """
    if not len(reference) or not len(current):
        raise ValueError("both samples need at least one value")
    # scipy takes half a second to import.
    from scipy import stats

    counts = _binned(reference, current)
    tested = stats.ks_2samp(reference, current)
    bins = counts.shape[1]
    scale = 1 / len(reference) + 1 / len(current)
    return Difference(
        psi=_stability_index(counts),
        # For equal distributions, the index follows a scaled chi-squared distribution.
        chance_psi=float(scale * stats.chi2.isf(probability, bins - 1)) if bins > 1 else 0.0,
        ks=float(tested.statistic),
        p_value=float(tested.pvalue),
        shift=float(stats.wasserstein_distance(reference, current)),
    )


def along_directions(reference: Values, current: Values, most: int) -> list[tuple[Values, Values]]:
    """Projects two samples of many measures on the directions in which they vary most, taken together.

    The directions come from both samples alike, so for equal distributions either is a random part of the whole, and
    tests of the projections hold. A change that all images share is itself such a direction. (Dimensionality reduction
    and a test for each dimension: Rabanser et al., "Failing Loudly", NeurIPS 2019.)

    Args:
        reference: shape (M, D), M at least 1.
        current: shape (N, D), N at least 1.
        most: Maximum number of directions.

    Returns:
        Projections of both samples for each direction: shapes (M,) and (N,), in standard deviations of the reference
        from its median, with the sign that gives the current sample a median of 0 or more. A direction in which the
        reference does not vary has the unit of both samples together.
    """
    both = np.concatenate([reference, current])
    both = both - both.mean(axis=0)
    scale = both.std(axis=0)
    # A network's channel that is always off varies by rounding alone.
    varying = scale > 1e-6 * max(1e-12, float(scale.max(initial=0.0)))
    both = both[:, varying] / scale[varying]
    _, strengths, directions = np.linalg.svd(both, full_matrices=False)
    found = []
    for direction in directions[: min(most, int((strengths > 1e-9 * strengths.max(initial=0.0)).sum()))]:
        projected = both @ direction
        before, now = projected[: len(reference)], projected[len(reference) :]
        unit = float(before.std())
        unit = unit if unit > 1e-9 * float(projected.std()) else float(projected.std())
        unit = unit if np.median(now) >= np.median(before) else -unit
        found.append(((before - np.median(before)) / unit, (now - np.median(before)) / unit))
    return found


def population_stability_index(reference: Values, current: Values) -> float:
    """The sum over bins of (share now - share before) x log(share now / share before).

    Bins are quantiles of the reference; a measure with few different values has a bin for each.

    Args:
        reference: M finite values.
        current: N finite values.
    """
    return _stability_index(_binned(reference, current))


def _stability_index(counts: npt.NDArray[np.int64]) -> float:
    smoothed = counts + _PRIOR
    before, now = smoothed / smoothed.sum(axis=1, keepdims=True)
    return float(np.sum((now - before) * np.log(now / before)))


def _binned(reference: Values, current: Values) -> npt.NDArray[np.int64]:
    """Counts by bin, shape (2, bins): of the reference, then of the current sample."""
    most = min(MAX_BINS, max(2, min(len(reference), len(current)) // IMAGES_A_BIN))
    different = np.unique(np.concatenate([reference, current]))
    if len(different) <= most:
        return np.stack([(values[:, None] == different).sum(axis=0) for values in (reference, current)])
    edges = np.unique(np.quantile(reference, np.arange(1, most) / most))
    if len(edges) < most - 1:
        # Many values of the reference are equal: give each such value a bin, apart from those just below it.
        edges = np.unique(np.concatenate([edges, np.nextafter(edges, -np.inf)]))
    return np.stack(
        [np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) for values in (reference, current)]
    )
