from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from uniad_ray.perception.segmentation.guided_upsampling import guided_upsample


def guided_filter_slowly(maps: np.ndarray, image: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """He et al., eq. 19-21, window by window: ridge regression of the map on the colours, averaged over windows."""
    labels, height, width = maps.shape
    slopes = np.zeros((height, width, labels, 3))
    offsets = np.zeros((height, width, labels))

    def window(row: int, column: int) -> tuple[slice, slice]:
        return (
            slice(max(0, row - radius), row + radius + 1),
            slice(max(0, column - radius), column + radius + 1),
        )

    for row in range(height):
        for column in range(width):
            colours = image[:, *window(row, column)].reshape(3, -1).astype(float)
            covariance = np.cov(colours, bias=True)
            for label in range(labels):
                values = maps[label][window(row, column)].ravel().astype(float)
                products = (colours * values).mean(axis=1) - colours.mean(axis=1) * values.mean()
                slopes[row, column, label] = np.linalg.solve(covariance + epsilon * np.eye(3), products)
                offsets[row, column, label] = values.mean() - slopes[row, column, label] @ colours.mean(axis=1)
    filtered = np.zeros_like(maps, dtype=float)
    for row in range(height):
        for column in range(width):
            around = window(row, column)
            slope = slopes[around].mean(axis=(0, 1))
            filtered[:, row, column] = slope @ image[:, row, column] + offsets[around].mean(axis=(0, 1))
    return filtered


@pytest.mark.parametrize("radius", [1, 2])
def test_equals_direct_filter_at_full_resolution(radius: int) -> None:
    generator = np.random.default_rng(radius)
    maps = generator.normal(size=(2, 6, 7)).astype(np.float32)
    image = generator.uniform(size=(3, 6, 7)).astype(np.float32)
    guide = torch.from_numpy(image)

    filtered = guided_upsample(torch.from_numpy(maps), guide, guide, radius, 0.01).numpy()

    np.testing.assert_allclose(filtered, guided_filter_slowly(maps, image, radius, 0.01), atol=2e-5)


def test_upsampled_map_follows_fine_edges() -> None:
    image = torch.zeros(3, 32, 32)
    image[:, :, 13:] = 1.0
    coarse_image = functional.adaptive_avg_pool2d(image, (8, 8))
    coarse = coarse_image[:1]  # fraction of the bright side in each coarse cell

    plain = functional.interpolate(coarse[None], (32, 32), mode="bilinear", align_corners=False)[0]
    guided = guided_upsample(coarse, image, coarse_image, 1, 1e-4)

    assert ((guided > 0.5) == (image[:1] > 0.5)).all()
    assert (guided - image[:1]).abs().max() < 0.05
    assert (plain - image[:1]).abs().max() > 0.3


def test_without_contrast_maps_are_upsampled_smoothly() -> None:
    coarse = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])

    upsampled = guided_upsample(coarse, torch.zeros(3, 4, 4), torch.zeros(3, 2, 2), 1, 1e-3)

    assert upsampled.shape == (1, 4, 4)
    np.testing.assert_allclose(upsampled.numpy(), 0.5, atol=1e-6)  # the window covers the whole coarse map


def test_sum_of_maps_is_preserved() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.softmax(torch.randn(4, 8, 8, generator=generator), dim=0)
    image = torch.rand(3, 32, 32, generator=generator)

    upsampled = guided_upsample(coarse, image, functional.adaptive_avg_pool2d(image, (8, 8)), 2, 1e-3)

    np.testing.assert_allclose(upsampled.sum(dim=0).numpy(), 1.0, atol=1e-4)
