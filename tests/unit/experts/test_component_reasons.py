from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.component_features import Feature
from uniad_ray.experts.component_reasons import component_reasons


def reason(feature: Feature, value: float, expected: float, scale: float) -> list[str]:
    """Of component 1 of 2, whose other one is as expected."""
    return component_reasons(
        "logical_teacher", [feature], np.array([0.5, value]), np.array([0.5, expected]), np.array([1.0, scale])
    )


@pytest.mark.parametrize(
    ("feature", "value", "expected", "scale", "text"),
    [
        ("area", 0.059, 0.1, 0.01, "area 41 % below the nearest normals"),
        ("area", 0.15, 0.1, 0.01, "area 50 % above the nearest normals"),
        ("area", 0.0, 0.1, 0.01, "missing, there in the nearest normals"),
        ("area", 0.1, 0.0, 0.01, "there, missing in the nearest normals"),
        ("quantity", 3.0, 4.0, 0.25, "3 pieces, 4 in the nearest normals"),
        ("quantity", 1.0, 2.4, 0.25, "1 piece, 2.4 in the nearest normals"),
        ("colour_ratio", 0.5, 1.25, 0.1, "colour ratio b/a 0.50, 1.25 in the nearest normals"),
        ("colour_a", 30.0, 10.0, 1.0, "colour redder by 20 CIELAB units than the nearest normals"),
        ("colour_a", -30.0, 10.0, 1.0, "colour greener by 40 CIELAB units than the nearest normals"),
        ("colour_b", 30.0, 10.0, 1.0, "colour yellower by 20 CIELAB units than the nearest normals"),
        ("colour_b", 5.0, 10.0, 1.0, "colour bluer by 5 CIELAB units than the nearest normals"),
    ],
)
def test_each_feature_has_its_sentence(
    feature: Feature, value: float, expected: float, scale: float, text: str
) -> None:
    assert reason(feature, value, expected, scale) == [f"logical teacher: component 1: {text}"]


def test_what_deviates_by_three_deviations_or_less_is_not_said() -> None:
    assert reason("area", 0.13, 0.1, 0.01001) == []
    assert reason("area", 0.13, 0.1, 0.00999) != []


def test_the_three_most_deviating_components_are_said_in_order() -> None:
    deviations = np.array([[4.0, 9.0], [0.0, 5.0], [7.0, 0.0], [3.5, 0.0]])  # components x (area, quantity)

    sentences = component_reasons("e", ["area", "quantity"], deviations.ravel() + 1.0, np.ones(8), np.ones(8))

    assert sentences == [
        "e: component 0: area 400 % above the nearest normals; 10 pieces, 1 in the nearest normals",
        "e: component 2: area 700 % above the nearest normals",
        "e: component 1: 6 pieces, 1 in the nearest normals",
    ]


def test_of_a_missing_component_only_that_is_said() -> None:
    sentences = component_reasons(
        "e", ["area", "colour_a", "quantity"], np.zeros(3), np.array([0.2, 40.0, 2.0]), np.array([0.01, 1.0, 0.25])
    )

    assert sentences == ["e: component 0: missing, there in the nearest normals"]
