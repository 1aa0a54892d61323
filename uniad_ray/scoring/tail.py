"""Extreme-value theory for normal scores: the upper tail as a generalised Pareto distribution, and rates above a score.

The highest quarter of the scores beyond a start is fitted by probability-weighted moments (Hosking and Wallis, 1987).
A few dozen scores hardly determine the shape, so it is shrunk towards an exponential tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

FEWEST_SCORES: Final = 20
"""Number of scores from which on a tail is fitted."""
RESOLVED_COUNT: Final = 10
"""Number of scores above a value from which on they are counted instead of modelled."""
_TAIL_SHARE: Final = 0.25
_FEWEST_IN_TAIL: Final = 10
_PRIOR_COUNT: Final = 40
"""Number of scores in the tail at which the estimated shape counts half."""
_MOST_SHAPE: Final = 0.5
_PLOTTING_OFFSET: Final = 0.35
_LARGEST_DISTANCE: Final = 1.63
"""Critical value of the Kolmogorov-Smirnov test at 1 %, times the root of the number of scores."""
_RESAMPLES: Final = 400
_BOOTSTRAP_ENDS: Final = (0.005, 0.995)
"""A bootstrap of a few dozen scores is too narrow. These ends cover the realised rate of 9 in 10 simulated samples."""
_COUNTED_ENDS: Final = (0.05, 0.95)


@dataclass(frozen=True)
class Tail:
    """Generalised Pareto distribution of the scores above a start.

    Attributes:
        start: Score at which the tail begins.
        share: Fraction of the scores above it.
        shape: 0 for an exponential tail; positive for a heavier one, negative for one with an end.
        scale: Positive, in units of the scores.
    """

    start: float
    share: float
    shape: float
    scale: float

    def value_at(self, rate: float) -> float:
        """Return the score that a fraction `rate` of the normal images exceeds; `rate` is below `share`."""
        ratio = self.share / rate
        if abs(self.shape) < 1e-6:
            return self.start + self.scale * math.log(ratio)
        return self.start + self.scale / self.shape * (math.pow(ratio, self.shape) - 1.0)

    def rate_above(self, value: float) -> float:
        """Return the fraction of normal images above a score that is at least `start`."""
        return float(_survival(np.array([value]), self.start, self.share, self.shape, self.scale)[0])


@dataclass(frozen=True)
class RateAbove:
    """Fraction of new normal images expected above a score.

    Attributes:
        expected: Estimate.
        low: Lower end of the 90 % interval.
        high: Upper end of the 90 % interval.
    """

    expected: float
    low: float
    high: float


def fit_tail(scores: npt.NDArray[np.floating]) -> Tail | None:
    """Fit the upper tail of normal scores.

    Args:
        scores: Finite scores of held-out normal images, shape (n,).

    Returns:
        The tail; None if there are too few scores, or if the fit does not describe them.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if len(ordered) < FEWEST_SCORES:
        return None
    start, share, shape, scale = (float(values[0]) for values in _fit(ordered[None]))
    beyond = ordered[ordered > start]
    if not scale > 1e-9 * max(1.0, abs(start)) or not len(beyond):
        return None
    spread = np.arange(len(beyond) + 1) / len(beyond)
    below = 1.0 - _survival(beyond, start, 1.0, shape, scale)
    distance = max(float(np.max(below - spread[:-1])), float(np.max(spread[1:] - below)))
    return None if distance > _LARGEST_DISTANCE / math.sqrt(len(beyond)) else Tail(start, share, shape, scale)


def rate_above(scores: npt.NDArray[np.floating], value: float) -> RateAbove:
    """Estimate the fraction of new normal images above a score, with a 90 % interval.

    From ten scores above the value on, they are counted. With fewer, the fitted tail is used, and its interval comes
    from a bootstrap. Without a tail, they are counted too. A counted interval is exact (Clopper and Pearson).

    Args:
        scores: Finite scores of held-out normal images, shape (n,), n at least 1.
        value: Threshold on the same scale.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    above = int((ordered > value).sum())
    low, high = _counted_interval(above, len(ordered))
    tail = fit_tail(ordered) if above < RESOLVED_COUNT else None
    if tail is None or value < tail.start:
        return RateAbove(above / len(ordered), low, high)
    drawn = np.random.default_rng(0).integers(0, len(ordered), (_RESAMPLES, len(ordered)))
    resampled = np.sort(ordered[drawn], axis=1)
    start, share, shape, scale = _fit(resampled)
    is_beyond = value >= start
    rates = np.where(
        is_beyond & (scale > 0),
        _survival(np.full(_RESAMPLES, value), start, share, shape, np.maximum(scale, 1e-12)),
        (resampled > value).mean(axis=1),
    )
    expected = tail.rate_above(value)
    ends = np.quantile(rates, _BOOTSTRAP_ENDS)
    return RateAbove(expected, min(expected, float(ends[0])), max(expected, float(ends[1])))


def most_above(count: int, rate: float) -> int:
    """Return how many of `count` scores a threshold with this rate plausibly leaves above it (95 %)."""
    term = (1.0 - rate) ** count
    total, above = term, 0
    while total < 0.95 and above < count:
        term *= (count - above) / (above + 1) * rate / (1.0 - rate)
        above += 1
        total += term
    return above


def _fit(ordered: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Fit the tails of B samples, sorted, shape (B, n): start, share, shape and scale, each of shape (B,)."""
    samples, count = ordered.shape
    size = min(count - 1, max(_FEWEST_IN_TAIL, round(_TAIL_SHARE * count)))
    start = ordered[:, count - size - 1]
    beyond = ordered[:, count - size :] - start[:, None]
    mean = beyond.mean(axis=1)
    upper = 1.0 - (np.arange(1, size + 1) - _PLOTTING_OFFSET) / size
    weighted = (beyond * upper).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = np.nan_to_num(2.0 - mean / (mean - 2.0 * weighted))
    shape = np.clip(size / (size + _PRIOR_COUNT) * estimate, -_MOST_SHAPE, _MOST_SHAPE)
    return start, np.full(samples, size / count), shape, mean * (1.0 - shape)


def _survival(
    values: FloatArray,
    start: FloatArray | float,
    share: FloatArray | float,
    shape: FloatArray | float,
    scale: FloatArray | float,
) -> FloatArray:
    excess = (values - start) / scale
    is_exponential = np.abs(shape) < 1e-6
    safe = np.where(is_exponential, 1.0, shape)
    # An end of the tail (negative shape) leaves nothing above it.
    pareto = np.maximum(1.0 + safe * excess, 0.0) ** (-1.0 / safe)
    return np.asarray(share * np.where(is_exponential, np.exp(-np.maximum(excess, 0.0)), pareto), dtype=np.float64)


def _counted_interval(above: int, count: int) -> tuple[float, float]:
    """Exact 90 % interval of a rate from `above` of `count` images."""
    from scipy.special import betaincinv

    low = float(betaincinv(above, count - above + 1, _COUNTED_ENDS[0])) if above else 0.0
    high = float(betaincinv(above + 1, count - above, _COUNTED_ENDS[1])) if above < count else 1.0
    return low, high
