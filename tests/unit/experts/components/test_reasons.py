from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.components.features import Feature
from uniad_ray.experts.components.reasons import component_reasons


def reason(feature: Feature, value: float, expected: float, scale: float) -> list[str]:
    """Reasons for component 1 of 2; the other one is as expected."""
    return component_reasons(
        "logical_teacher", [feature], np.array([0.5, value]), np.array([0.5, expected]), np.array([1.0, scale])
    )


@pytest.mark.parametrize(
    ("feature", "value", "expected", "scale", "text"),
    [
        ("area", 0.059, 0.1, 0.01, "area 41 % below the nearest normal images"),
        ("area", 0.15, 0.1, 0.01, "area 50 % above the nearest normal images"),
        ("area", 0.0, 0.1, 0.01, "missing, but present in the nearest normal images"),
        ("area", 0.1, 0.0, 0.01, "present, but missing in the nearest normal images"),
        ("quantity", 3.0, 4.0, 0.25, "3 pieces, 4 in the nearest normal images"),
        ("quantity", 1.0, 2.4, 0.25, "1 piece, 2.4 in the nearest normal images"),
        ("colour_ratio", 0.5, 1.25, 0.1, "colour ratio b/a 0.50, 1.25 in the nearest normal images"),
        ("colour_a", 30.0, 10.0, 1.0, "colour redder by 20 CIELAB units than the nearest normal images"),
        ("colour_a", -30.0, 10.0, 1.0, "colour greener by 40 CIELAB units than the nearest normal images"),
        ("colour_b", 30.0, 10.0, 1.0, "colour yellower by 20 CIELAB units than the nearest normal images"),
        ("colour_b", 5.0, 10.0, 1.0, "colour bluer by 5 CIELAB units than the nearest normal images"),
    ],
)
def test_each_feature_has_its_sentence(
    feature: Feature, value: float, expected: float, scale: float, text: str
) -> None:
    assert reason(feature, value, expected, scale) == [f"logical teacher: component 1: {text}"]


def test_small_deviations_give_no_reason() -> None:
    assert reason("area", 0.13, 0.1, 0.01001) == []
    assert reason("area", 0.13, 0.1, 0.00999) != []


def test_three_largest_deviations_are_reported_in_order() -> None:
    deviations = np.array([[4.0, 9.0], [0.0, 5.0], [7.0, 0.0], [3.5, 0.0]])  # components x (area, quantity)

    sentences = component_reasons("e", ["area", "quantity"], deviations.ravel() + 1.0, np.ones(8), np.ones(8))

    assert sentences == [
        "e: component 0: area 400 % above the nearest normal images; 10 pieces, 1 in the nearest normal images",
        "e: component 2: area 700 % above the nearest normal images",
        "e: component 1: 6 pieces, 1 in the nearest normal images",
    ]


def test_missing_component_reports_only_that() -> None:
    sentences = component_reasons(
        "e", ["area", "colour_a", "quantity"], np.zeros(3), np.array([0.2, 40.0, 2.0]), np.array([0.01, 1.0, 0.25])
    )

    assert sentences == ["e: component 0: missing, but present in the nearest normal images"]
