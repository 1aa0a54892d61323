from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.composition.features import ABSENT, DEPTHS, FEATURES, SMALLEST_CHANGES, Feature
from uniad_ray.experts.composition.label_statistics import LabelStatistics
from uniad_ray.experts.composition.normal_spread import NormalSpread
from uniad_ray.experts.composition.reasons import composition_reasons

NORMAL = np.array([0.10, np.log(4.0), np.log(0.05), 0.2, 0.2, 0.0] + [0.1] * len(DEPTHS))


def reasons(**changes: float) -> list[str]:
    """Reasons of an image with one red label, whose measurements were constant in normal images."""
    statistics = LabelStatistics(4)
    statistics.add(np.zeros((4, 4), dtype=np.uint8), np.full((4, 4, 3), (200, 40, 40), dtype=np.uint8))
    spread = NormalSpread.fit(np.tile(NORMAL, (10, 1)), SMALLEST_CHANGES)
    measured = NORMAL.copy()
    for name, value in changes.items():
        measured[FEATURES.index(name)] = value  # type: ignore[arg-type]
    return composition_reasons([measured[None]], [statistics], [spread])


@pytest.mark.parametrize(
    ("feature", "value", "sentence"),
    [
        ("area", 0.15, "bright red covers 15.0 % of the image, 10.0 % in normal images"),
        ("regions", float(np.log(6.0)), "5 bright red regions, 3 in normal images"),
        ("largest", float(np.log(0.02)), "the largest bright red region covers 2.0 % of the image, 5.0 % in normal"),
        ("row_spread", 0.3, "bright red is spread over 30.0 % of the height (standard deviation), 20.0 % in normal"),
        ("column_spread", 0.1, "bright red is spread over 10.0 % of the width (standard deviation), 20.0 % in normal"),
        ("tilt", 0.5, "bright red is spread along another diagonal than in normal images"),
        ("depth_1", 0.2, "4.0 % of the image is bright red within 0.5 % from its edge, 1.0 % in normal images"),
        ("depth_3", 0.2, "4.0 % of the image is bright red 1.0 to 1.7 % from its edge, 1.0 % in normal images"),
        ("depth_6", 0.2, "4.0 % of the image is bright red more than 5.0 % from its edge, 1.0 % in normal images"),
    ],
)
def test_each_measurement_has_a_sentence(feature: Feature, value: float, sentence: str) -> None:
    (found,) = reasons(**{feature: value})

    assert found.startswith(sentence)


def test_a_normal_image_has_no_reason() -> None:
    assert reasons() == []
    assert reasons(area=0.104) == []


def test_a_colour_has_one_sentence_about_its_most_unusual_measurement() -> None:
    assert reasons(area=0.12, column_spread=0.5)[0].startswith("bright red is spread over 50.0 % of the width")
    assert len(reasons(area=0.12, column_spread=0.5)) == 1


def test_a_depth_is_described_only_if_nothing_else_is_unusual() -> None:
    assert reasons(area=0.12, depth_2=0.9)[0].startswith("bright red covers 12.0 %")


def test_a_number_of_regions_is_preferred() -> None:
    assert reasons(area=0.2, regions=float(np.log(5.0))) == ["4 bright red regions, 3 in normal images"]


def test_a_missing_colour_is_named() -> None:
    changes = dict(zip(FEATURES, ABSENT, strict=True))

    assert reasons(**changes) == ["0 bright red regions, 3 in normal images"]
