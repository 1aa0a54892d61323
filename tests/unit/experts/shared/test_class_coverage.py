from __future__ import annotations

import numpy as np

from uniad_ray.experts.shared.class_coverage import class_coverage
from uniad_ray.perception.segments import Segments


def test_coverage_is_the_union_of_segments() -> None:
    masks = np.zeros((3, 8, 8), dtype=bool)
    masks[0, :4, :4] = True
    masks[1, 4:, 6:] = True
    masks[2, :2, :3] = True
    segments = Segments.of(masks).named(["bolt", "bolt", "nut"])

    found = class_coverage(segments, 4)

    # Cells of 2 x 2 pixels are sampled at their lower right pixel: for the nut, pixels (1, 1) and (1, 3).
    assert found["bolt"].astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert np.argwhere(found["nut"]).tolist() == [[0, 0]]


def test_no_segments_cover_nothing() -> None:
    assert class_coverage(Segments.of(np.zeros((0, 8, 8), dtype=bool)), 4) == {}
