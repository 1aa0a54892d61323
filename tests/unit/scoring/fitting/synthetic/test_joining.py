from __future__ import annotations

from itertools import product

import numpy as np

from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.fitting.synthetic.joining import _cheapest_path, joined
from uniad_ray.scoring.fitting.synthetic.parts import Parts


def test_path_is_the_cheapest_of_all() -> None:
    for seed in range(5):
        cost = np.random.default_rng(seed).random((5, 8))
        value, path = _cheapest_path(cost)
        paths = [columns for columns in product(range(2, 6), repeat=5) if np.abs(np.diff(columns)).max() <= 1]
        expected = min(paths, key=lambda columns: cost[range(5), columns].sum())
        assert tuple(path) == expected
        np.testing.assert_allclose(value, cost[range(5), expected].mean())


def test_both_images_are_seen_and_no_part_is_cut() -> None:
    def scene(colour: int, top: int) -> Parts:
        image = np.full((60, 60, 3), 100, dtype=np.uint8)
        masks = np.zeros((2, 60, 60), dtype=bool)
        masks[0, top : top + 12, 4:16] = True
        masks[1, top : top + 12, 40:56] = True
        image[masks.any(axis=0)] = colour
        return Parts(image, Segments.of(masks, names=["a", "b"]))

    halves = set()
    for seed in range(8):
        found = joined(scene(20, 20), [scene(200, 20)], np.random.default_rng(seed))
        assert found is not None
        left, right = found[20:32, 4:16, 0], found[20:32, 40:56, 0]
        # Paths from left to right cannot avoid both parts of an image, but they pass above or below.
        assert np.ptp(left.astype(int)) <= 2
        assert np.ptp(right.astype(int)) <= 2
        halves.add((int(left[6, 6]), int(right[6, 6])))
    assert {(20, 200), (200, 20)} & halves


def test_an_image_needs_another_one() -> None:
    assert joined(Parts(np.zeros((20, 20, 3), dtype=np.uint8), None), [], np.random.default_rng(0)) is None
