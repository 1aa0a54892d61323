from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.cluster import DBSCAN

from uniad_ray.experts.components.features import (
    ComponentFeatureConfig,
    component_features,
    count_pieces,
)
from uniad_ray.perception.colours import cielab
from uniad_ray.perception.grids import evenly_spaced

RED, BLUE, GREY = (200, 30, 30), (30, 30, 200), (128, 128, 128)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A grey background (0) with two red squares (1) and a blue bar (2); component 3 is absent."""
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[4:12, 4:12] = labels[4:12, 40:48] = 1
    labels[40:44, 8:40] = 2
    image = np.array([GREY, RED, BLUE], dtype=np.uint8)[labels]
    return labels, image


def measured(*groups: str, **options: Any) -> np.ndarray:
    config = ComponentFeatureConfig.model_validate({"groups": groups, **options})
    return component_features(*scene(), 4, config).reshape(4, -1)


def test_area_is_the_fraction_of_pixels() -> None:
    assert measured("area")[:, 0].tolist() == [1 - 256 / 4096, 128 / 4096, 128 / 4096, 0.0]


def test_quantity_is_the_number_of_pieces() -> None:
    assert measured("quantity")[:, 0].tolist() == [1.0, 2.0, 1.0, 0.0]


def test_pieces_of_a_wide_image_are_counted_on_a_wide_grid() -> None:
    # On a grid of 32 x 64 cells, each square has 2 x 2 of them; a grid of 64 x 64 cells would have 4 x 2.
    labels = np.zeros((320, 640), dtype=np.uint8)
    for column in range(40, 640, 100):
        labels[100:120, column : column + 20] = 1
    image = np.array([GREY, RED], dtype=np.uint8)[labels]

    def pieces(size: int) -> float:
        config = ComponentFeatureConfig(groups=("quantity",), piece_size=size)
        return float(component_features(labels, image, 2, config)[1])

    assert (pieces(4), pieces(5)) == (6.0, 0.0)


def test_colour_is_mean_a_and_b() -> None:
    _, a, b = np.moveaxis(cielab(np.array([[RED, BLUE]], dtype=np.uint8)), -1, 0)

    colours = measured("colour")

    np.testing.assert_allclose(colours[1], [a[0, 0], b[0, 0]])
    np.testing.assert_allclose(colours[2], [a[0, 1], b[0, 1]])
    np.testing.assert_allclose(colours[[0, 3]], 0.0, atol=1e-3)


def test_colour_ratio_is_bounded_at_grey() -> None:
    _, a, b = cielab(np.array(RED, dtype=np.uint8))

    ratio = measured("colour_ratio")[:, 0]

    assert ratio[1] == pytest.approx(float(a * b / (a**2 + 25.0)))
    assert ratio[1] == pytest.approx(float(b / a), rel=0.01)
    assert abs(ratio[0]) < 1e-3
    assert ratio[3] == 0.0


def test_features_are_ordered_by_component() -> None:
    config = ComponentFeatureConfig(groups=("quantity", "colour", "area"))

    together = component_features(*scene(), 4, config)

    assert config.features == ("quantity", "colour_a", "colour_b", "area")
    assert config.smallest_changes(4).shape == together.shape == (16,)
    expected = np.concatenate([measured("quantity"), measured("colour"), measured("area")], axis=1)
    assert np.array_equal(together.reshape(4, 4), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.integers(1, 9))
def test_pieces_match_dbscan_clusters(seed: int, density: float, piece_size: int) -> None:
    mask = np.random.default_rng(seed).uniform(size=(16, 20)) < density

    points = np.argwhere(mask)
    found = DBSCAN(eps=1.5, min_samples=piece_size).fit_predict(points) if len(points) else np.array([-1])

    assert count_pieces(mask, piece_size) == found.max() + 1


def test_colour_and_pieces_use_block_centres() -> None:
    pixels = np.arange(6 * 9).reshape(6, 9)

    assert evenly_spaced(pixels, 2, 3).tolist() == [[10, 13, 16], [37, 40, 43]]
    assert np.array_equal(evenly_spaced(pixels, 6, 9), pixels)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 80), st.integers(1, 6))
def test_any_image_gives_finite_features(seed: int, height: int, width: int, used: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, used, size=(height, width)).astype(np.uint8)
    image = generator.integers(0, 256, size=(height, width, 3)).astype(np.uint8)
    config = ComponentFeatureConfig(groups=("area", "colour_ratio", "colour", "quantity"))

    features = component_features(labels, image, 6, config)

    assert features.dtype == np.float64
    assert np.isfinite(features).all()


@pytest.mark.parametrize("options", [{"groups": ()}, {"groups": ("area", "area")}, {"piece_size": 10}, {"group": "x"}])
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ComponentFeatureConfig.model_validate(options)
