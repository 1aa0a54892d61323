"""Describes in words what is unusual about the composition of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from uniad_ray.experts.composition.features import DEPTH_BOUNDS, DEPTHS, FEATURES, Feature
from uniad_ray.experts.composition.label_statistics import LabelStatistics
from uniad_ray.experts.composition.normal_spread import NormalSpread
from uniad_ray.perception.text.component_describer import colour_words

_CLEARLY: Final = 3.0
"""Standard deviations beyond which a measurement is worth a sentence."""
_MOST_REASONS: Final = 3
_REGIONS: Final = FEATURES.index("regions")


def composition_reasons(
    measured: Sequence[np.ndarray], statistics: Sequence[LabelStatistics], spreads: Sequence[NormalSpread]
) -> list[str]:
    """Describes the measurements that are clearly outside of their range in normal images.

    Args:
        measured: The `FEATURES` of each label of each map, float64, shape (K, F).
        statistics: The labels of each map.
        spreads: Normal measurements of each map.

    Returns:
        At most three sentences, the most unusual colour first, one for each colour.
    """
    found: dict[str, tuple[float, str]] = {}
    for features, one, spread in zip(measured, statistics, spreads, strict=True):
        shape = features.shape
        low, high = (bound.reshape(shape) for bound in spread.bounds)
        beyond = np.maximum(low - features, features - high).clip(0.0)
        deviations = np.abs(features - spread.centre.reshape(shape)) / spread.scale.reshape(shape)
        deviations[beyond <= 0.0] = 0.0
        for label in np.flatnonzero(deviations.max(axis=1) > _CLEARLY):
            column = _easiest_to_check(deviations[label])
            red, green, blue = map(float, one.colours[label])
            colour = colour_words(red, green, blue, softness=0.0)
            text = _sentence(colour, FEATURES[column], features[label, column], low[label, column], high[label, column])
            strength = float(deviations[label].max())
            if strength > found.get(colour, (0.0, ""))[0]:
                found[colour] = (strength, text)
    return [text for _, text in sorted(found.values(), key=lambda entry: -entry[0])[:_MOST_REASONS]]


def _easiest_to_check(deviations: np.ndarray) -> int:
    """Column of the measurement to describe: a number of regions if it is unusual, a depth only if nothing else is."""
    if deviations[_REGIONS] > 0.0:
        return _REGIONS
    plain = deviations.copy()
    plain[[FEATURES.index(depth) for depth in DEPTHS]] = 0.0
    return int((plain if plain.max() > _CLEARLY else deviations).argmax())


def _sentence(colour: str, feature: Feature, value: float, low: float, high: float) -> str:
    """One measurement of a colour, with its range in normal images."""
    if feature == "regions":
        number, fewest, most = (round(math.expm1(each)) for each in (value, low, high))
        return f"{number} {colour} regions, {fewest if fewest == most else f'{fewest} to {most}'} in normal images"
    if feature == "tilt":
        return f"{colour} is spread along another diagonal than in normal images"
    if feature == "largest":
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    elif feature in DEPTHS:
        value, low, high = value**2, low**2, high**2
    normal = f"{_percent(low, high)} in normal images"
    if feature in DEPTHS:
        return f"{_percent(value)} of the image is {colour} {_depth(DEPTHS.index(feature))} its edge, {normal}"
    if feature == "area":
        return f"{colour} covers {_percent(value)} of the image, {normal}"
    if feature == "largest":
        return f"the largest {colour} region covers {_percent(value)} of the image, {normal}"
    side = "height" if feature == "row_spread" else "width"
    return f"{colour} is spread over {_percent(value)} of the {side} (standard deviation), {normal}"


def _percent(*values: float) -> str:
    """Fractions in per cent with one decimal: one value, or the ends of a range."""
    return " to ".join(dict.fromkeys(f"{100 * value:.1f}" for value in values)) + " %"


def _depth(number: int) -> str:
    """A class of distance to an edge, in per cent of the longest side of the image."""
    if number == 0:
        return f"within {_percent(DEPTH_BOUNDS[0])} from"
    if number == len(DEPTH_BOUNDS):
        return f"more than {_percent(DEPTH_BOUNDS[-1])} from"
    return f"{_percent(*DEPTH_BOUNDS[number - 1 : number + 1])} from"
