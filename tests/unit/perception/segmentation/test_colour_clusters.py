from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from uniad_ray.perception.colours import cielab
from uniad_ray.perception.segmentation.colour_clusters import (
    colour_centres,
    edge_ranks,
    nearest_centre,
    smoothed_colours,
)

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def filtered(image: np.ndarray) -> np.ndarray:
    """The slow reference: scipy's median in each channel."""
    return np.stack([ndimage.median_filter(image[..., channel], 3, mode="reflect") for channel in range(3)], axis=-1)


def test_small_images_get_one_median() -> None:
    image = noisy(21, 34)

    np.testing.assert_array_equal(smoothed_colours(image), cielab(filtered(image)))


def test_large_images_get_two_medians() -> None:
    image = noisy(8, 400)

    np.testing.assert_array_equal(smoothed_colours(image), cielab(filtered(filtered(image))))


def test_a_colour_image_has_its_colours_as_centres() -> None:
    image = np.array([RED, RED, RED, GREEN, GREEN, BLUE] * 40, dtype=np.uint8).reshape(-1, 12, 3)
    colours = cielab(image)

    centres = colour_centres([colours, colours], [2, 3, 4], seed=0)

    assert sorted(centres) == [2, 3]
    np.testing.assert_allclose(centres[3], cielab(np.array([RED, GREEN, BLUE], dtype=np.uint8)), atol=1e-3)


def test_a_rare_colour_gets_a_centre_if_colours_count_instead_of_pixels() -> None:
    rng = np.random.default_rng(0)
    ground = rng.integers(20, 236, (3996, 1)).repeat(3, axis=1)
    image = np.concatenate([ground, np.tile(BLUE, (4, 1))]).astype(np.uint8).reshape(40, 100, 3)

    def distance(rarity: float) -> float:
        centres = colour_centres([cielab(image)] * 4, [3], 0, rarity)[3]
        return float(np.linalg.norm(centres - cielab(np.array(BLUE, dtype=np.uint8)), axis=1).min())

    assert distance(0.0) > 50.0
    assert distance(1.0) < 1.0


def test_images_of_all_sizes_take_part() -> None:
    one, other = (cielab(np.full((side, side, 3), RED if side < 50 else BLUE, dtype=np.uint8)) for side in (9, 90))

    centres = colour_centres([one, other], [2], seed=0)[2]

    np.testing.assert_allclose(centres, cielab(np.array([BLUE, RED], dtype=np.uint8)), atol=1e-3)


@pytest.mark.parametrize("number", [2, 7])
def test_the_nearest_centre_by_brute_force(number: int) -> None:
    rng = np.random.default_rng(number)
    colours = rng.normal(size=(13, 17, 3)).astype(np.float32)
    centres = rng.normal(size=(number, 3)).astype(np.float32)

    found = nearest_centre(colours, centres)

    expected = ((colours[:, :, None] - centres) ** 2).sum(axis=-1).argmin(axis=-1)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_edges_rank_by_contrast() -> None:
    image = np.full((32, 60, 3), 100, dtype=np.uint8)
    image[:, 20:40] = 120
    image[:, 40:] = 220

    ranks = edge_ranks(cielab(image))

    assert ranks[16, 10] == ranks[16, 30] == 0.0
    assert ranks[16, 39:41].min() > ranks[16, 19:21].max() > 0.7
    assert ranks.max() < 1.0
