from __future__ import annotations

import math
import re

import numpy as np
import pytest

from uniad_ray.config.normal_images import NormalImagesConfig
from uniad_ray.scoring.fitting.altered_copies import altered, copies_of
from uniad_ray.scoring.fitting.perceptions import NormalImage

SIDE = 100
KEYS = [f"{number:032x}" for number in range(40)]


@pytest.mark.parametrize(
    ("images", "fewest", "copies"), [(1, 4, 3 + 4), (2, 4, 3), (3, 4, 1), (4, 4, 1), (5, 4, 0), (100, 4, 0), (3, 10, 4)]
)
def test_copies_fill_up_small_categories(images: int, fewest: int, copies: int) -> None:
    assert NormalImagesConfig(fewest=fewest).copies_of_each(images) == copies


def test_copy_keys_are_unique_and_deterministic() -> None:
    rows = [NormalImage(f"{number:032x}", f"{number:064x}", "train", "chunk") for number in range(2)]
    copies = copies_of(rows, 3)
    assert [copy.copy_of for copy in copies] == [rows[0].row_key] * 3 + [rows[1].row_key] * 3
    assert copies == [*copies_of(rows[:1], 3), *copies_of(rows[1:], 3)]
    for length, keys in ((32, [copy.row_key for copy in copies]), (64, [copy.image_id for copy in copies])):
        assert len(set(keys)) == 6
        assert all(re.fullmatch(f"[0-9a-f]{{{length}}}", key) for key in keys)
    assert {copy.chunk for copy in copies} == {"chunk"}


def test_altered_copy_is_deterministic() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    copies = [altered(image, key) for key in KEYS[:3]]
    for key, copy in zip(KEYS, copies, strict=False):
        assert copy.shape == image.shape
        assert copy.dtype == np.uint8
        np.testing.assert_array_equal(copy, altered(image, key))
        assert not np.array_equal(copy, image)
    assert not np.array_equal(copies[0], copies[1])


@pytest.mark.parametrize("place", [(15, 20), (50, 50), (85, 70), (85, 270)])
def test_shift_is_bounded(place: tuple[int, int]) -> None:
    """At most 2 % of each side, plus a rotation by 2 degrees about the centre; never mirrored."""
    row, column = place
    width = SIDE if column < SIDE else 3 * SIDE
    image = np.zeros((SIDE, width, 3), dtype=np.uint8)
    image[row - 2 : row + 3, column - 2 : column + 3] = 200
    radius = math.hypot(row - SIDE / 2, column - width / 2)
    allowed = math.hypot(0.02 * SIDE, 0.02 * width) + radius * math.radians(2) + 0.5
    moved = []
    for key in KEYS:
        bright = np.argwhere(altered(image, key).max(axis=2) > 100)
        moved.append(math.dist(bright.mean(axis=0), place))
    assert max(moved) <= allowed
    assert max(moved) > 0.5


def test_light_changes_are_bounded() -> None:
    image = np.full((SIDE, SIDE, 3), (60, 120, 180), dtype=np.uint8)
    means = []
    for key in KEYS:
        copy = altered(image, key)
        assert (copy == copy[0, 0]).all()
        change = copy[0, 0].astype(int) - image[0, 0]
        # 8 levels plus 8 % of the distance to the mean.
        assert np.abs(change).max() <= 8 + 0.08 * 60 + 0.5
        means.append(change.mean())
    assert min(means) < -2
    assert max(means) > 2
