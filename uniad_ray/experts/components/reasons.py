"""Describes deviating component features in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from uniad_ray.experts.components.features import Feature

_CLEARLY: Final = 3.0
_MOST_REASONS: Final = 3
_MISSING: Final = "missing, but present in the nearest normal images"
_NEW: Final = "present, but missing in the nearest normal images"
_PRESENCE: Final = (_MISSING, _NEW)


def component_reasons(
    name: str, features: Sequence[Feature], values: np.ndarray, expected: np.ndarray, scale: np.ndarray
) -> list[str]:
    """Describes clear differences to the nearest normal images, largest first.

    Args:
        name: Name of the expert, which starts every sentence.
        features: The P features of one component.
        values: Features of the image: float64, shape (K * P,).
        expected: Features of the nearest normal images: float64, shape (K * P,).
        scale: Deviation of each feature among normal images: float64, shape (K * P,), > 0.

    Returns:
        At most three sentences, one per component, with all its features that are off by more than three deviations.
        For a component that is missing or unexpected, the sentence says only that.
    """
    shape = (-1, len(features))
    values, expected, scale = (numbers.reshape(shape) for numbers in (values, expected, scale))
    deviations = np.abs(values - expected) / scale
    most = deviations.max(axis=1)
    reasons = []
    for component in np.argsort(-most, kind="stable")[:_MOST_REASONS]:
        if most[component] <= _CLEARLY:
            break
        texts = [
            _difference(feature, float(value), float(usual))
            for feature, value, usual, deviation in zip(
                features, values[component], expected[component], deviations[component], strict=True
            )
            if deviation > _CLEARLY
        ]
        presence = [text for text in texts if text in _PRESENCE]
        reasons.append(f"{name.replace('_', ' ')}: component {component}: {'; '.join(presence or texts)}")
    return reasons


def _difference(feature: Feature, value: float, expected: float) -> str:
    if feature == "area":
        if value == 0.0:
            return _MISSING
        if expected == 0.0:
            return _NEW
        change = f"{100.0 * abs(value / expected - 1.0):.0f} % {'above' if value > expected else 'below'}"
        return f"area {change} the nearest normal images"
    if feature == "quantity":
        return (
            f"{value:.0f} {'piece' if value == 1 else 'pieces'}, "
            f"{_whole_or_tenth(expected)} in the nearest normal images"
        )
    if feature == "colour_ratio":
        return f"colour ratio b/a {value:.2f}, {expected:.2f} in the nearest normal images"
    towards = ("redder", "greener") if feature == "colour_a" else ("yellower", "bluer")
    return (
        f"colour {towards[value < expected]} by {abs(value - expected):.0f} CIELAB units than the nearest normal images"
    )


def _whole_or_tenth(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
