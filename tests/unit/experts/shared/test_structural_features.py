from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from uniad_ray.experts.shared.structural_features import Neighbourhood, structural_features

LEVELS = ["level1", "level2"]


def levels() -> dict[str, torch.Tensor]:
    random = np.random.default_rng(3)
    shapes = {"level1": (2, 4, 6, 6), "level2": (2, 6, 3, 3)}
    return {name: torch.from_numpy(random.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}


def mean_of_window(field: np.ndarray, side: int) -> np.ndarray:
    """Equation 1 with the mean as aggregation, cell by cell, with zeros outside the field."""
    _, height, width = field.shape
    reach = side // 2
    out = np.zeros_like(field)
    for row in range(height):
        for column in range(width):
            for near_row in range(row - reach, row + reach + 1):
                for near_column in range(column - reach, column + reach + 1):
                    if 0 <= near_row < height and 0 <= near_column < width:
                        out[:, row, column] += field[:, near_row, near_column]
    return out / side**2


def doubled(field: np.ndarray) -> np.ndarray:
    """Bilinear interpolation to twice the size, cell by cell, with a repeated border."""
    channels, height, width = field.shape
    out = np.zeros((channels, 2 * height, 2 * width))
    for row in range(2 * height):
        for column in range(2 * width):
            y, x = (min(max(place / 2 - 0.25, 0.0), last) for place, last in ((row, height - 1), (column, width - 1)))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            out[:, row, column] = (
                (1 - y % 1) * ((1 - x % 1) * field[:, top, left] + x % 1 * field[:, top, right])
                + y % 1 * ((1 - x % 1) * field[:, bottom, left] + x % 1 * field[:, bottom, right])
            )  # fmt: skip
    return out


def slowly(image: int) -> np.ndarray:
    """Equations 1 and 2, float64, shape (10, 6, 6)."""
    first, second = (levels()[name][image].numpy().astype(np.float64) for name in LEVELS)
    return np.concatenate([mean_of_window(first, 3), doubled(mean_of_window(second, 3))])


@pytest.mark.parametrize("image", [0, 1])
def test_levels_are_pooled_resized_and_concatenated(image: int) -> None:
    features = structural_features(levels(), LEVELS)

    assert features.shape == (2, 10, 6, 6)
    np.testing.assert_allclose(features[image].numpy(), slowly(image), atol=1e-6)


def test_excess_channels_are_averaged() -> None:
    features = structural_features(levels(), LEVELS, channels=4)

    groups = [(0, 3), (2, 5), (5, 8), (7, 10)]  # from floor(i * 10 / 4) to ceil((i + 1) * 10 / 4)
    expected = np.stack([slowly(1)[first:last].mean(axis=0) for first, last in groups])
    np.testing.assert_allclose(features[1].numpy(), expected, atol=1e-6)


def test_few_channels_are_unchanged() -> None:
    assert torch.equal(structural_features(levels(), LEVELS, channels=10), structural_features(levels(), LEVELS))


def test_gradients_reach_every_level() -> None:
    fields = {name: level.requires_grad_() for name, level in levels().items()}

    structural_features(fields, LEVELS, channels=4).square().mean().backward()

    for level in fields.values():
        assert level.grad is not None
        assert float(level.grad.abs().min()) > 0.0


def test_window_must_be_odd() -> None:
    side = TypeAdapter(Neighbourhood)

    assert side.validate_python(3) == 3
    for wrong in (0, 2, 33):
        with pytest.raises(ValidationError):
            side.validate_python(wrong)
