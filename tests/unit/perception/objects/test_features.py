from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from uniad_ray.perception.base import Perception
from uniad_ray.perception.objects.features import ObjectFeatures, ObjectFeaturesConfig
from uniad_ray.perception.segments import Segments


def features(*, unit_length: bool = True) -> ObjectFeatures:
    config = ObjectFeaturesConfig(segments="o/segments", fields=("a/1", "a/2"), unit_length=unit_length)
    return ObjectFeatures("look", config, "cpu")


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
    """Every pixel takes the value of its cell."""
    _, height, width = field.shape
    pixels = field.numpy().repeat(16 // height, axis=1).repeat(16 // width, axis=2)
    return np.asarray(pixels[:, piece].mean(axis=1))


@pytest.mark.parametrize("unit_length", [True, False])
def test_vectors_are_field_means_over_segments(*, unit_length: bool) -> None:
    large, small = mask(0, 0, 9, 7), mask(12, 3, 13, 4)
    batch = perception(np.stack([small, large]), mask(4, 4, 8, 8)[None])

    found = features(unit_length=unit_length).extract(batch)["look/vectors"]

    assert [each.shape for each in found] == [(2, 5), (1, 5)]
    for row, piece in enumerate([large, small]):
        means = [plain(batch.fields[name][0], piece) for name in ("a/1", "a/2")]
        lengths = [float(np.linalg.norm(mean)) if unit_length else 1.0 for mean in means]
        expected = np.concatenate([mean / length for mean, length in zip(means, lengths, strict=True)])
        np.testing.assert_allclose(found[0][row], expected, rtol=1e-5)


def test_an_image_without_segments_has_no_vectors() -> None:
    found = features().extract(perception(np.zeros((0, 16, 16), dtype=bool)))["look/vectors"]

    assert found[0].shape == (0, 5)
    assert found[0].dtype == np.float32


def test_memory_layout_does_not_matter() -> None:
    batch = perception(mask(0, 0, 9, 7)[None], mask(12, 3, 13, 4)[None])
    strided = {name: field.contiguous(memory_format=torch.channels_last) for name, field in batch.fields.items()}

    plain_layout, other = (features().extract(each)["look/vectors"] for each in (batch, replace(batch, fields=strided)))

    for one, same in zip(plain_layout, other, strict=True):
        np.testing.assert_array_equal(one, same)
