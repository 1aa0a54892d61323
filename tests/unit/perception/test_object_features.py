from __future__ import annotations

import numpy as np
import torch

from uniad_ray.perception.base import Perception
from uniad_ray.perception.object_features import ObjectFeatures, ObjectFeaturesConfig
from uniad_ray.perception.segments import Segments


def features() -> ObjectFeatures:
    return ObjectFeatures("look", ObjectFeaturesConfig(segments="o/segments", fields=("a/1", "a/2")), "cpu")


def perception(*masks: np.ndarray) -> Perception:
    generator = torch.Generator().manual_seed(0)
    count = len(masks)
    return Perception(
        [f"{n:032x}" for n in range(count)],
        np.zeros((count, 16, 16, 3), dtype=np.uint8),
        {
            "a/1": torch.rand(count, 3, 8, 8, generator=generator),
            "a/2": torch.rand(count, 2, 4, 4, generator=generator),
        },
        segments={"o/segments": [Segments.of(each) for each in masks]},
    )


def mask(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    found = np.zeros((16, 16), dtype=bool)
    found[top:bottom, left:right] = True
    return found


def plain(field: torch.Tensor, piece: np.ndarray) -> np.ndarray:
    """Every pixel takes the value of the cell that it lies in."""
    _, height, width = field.shape
    pixels = field.numpy().repeat(16 // height, axis=1).repeat(16 // width, axis=2)
    mean = pixels[:, piece].mean(axis=1)
    return np.asarray(mean / np.linalg.norm(mean))


def test_vectors_are_unit_means_of_each_field_over_each_segment() -> None:
    large, small = mask(0, 0, 9, 7), mask(12, 3, 13, 4)
    batch = perception(np.stack([small, large]), mask(4, 4, 8, 8)[None])

    found = features().perceive(batch)["look/vectors"]

    assert [each.shape for each in found] == [(2, 5), (1, 5)]
    for row, piece in enumerate([large, small]):
        expected = np.concatenate([plain(batch.fields[name][0], piece) for name in ("a/1", "a/2")])
        np.testing.assert_allclose(found[0][row], expected, rtol=1e-5)


def test_an_image_without_segments_has_no_vectors() -> None:
    found = features().perceive(perception(np.zeros((0, 16, 16), dtype=bool)))["look/vectors"]

    assert found[0].shape == (0, 5)
    assert found[0].dtype == np.float32
