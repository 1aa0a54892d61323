from __future__ import annotations

import numpy as np
import pytest
import torch

from uniad_ray.perception.features.student import DistilledFeatures, LossWeights
from uniad_ray.training.losses import (
    distillation_losses,
    high_level_loss,
    logical_loss,
    low_level_loss,
    weighted_sum,
)


def features(seed: int) -> DistilledFeatures:
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn(shape, generator=generator) for shape in ((2, 3, 4, 4), (2, 5, 2, 2))]
    return DistilledFeatures(levels, torch.randn((2, 4, 3, 3), generator=generator))


def mean_of_squares(ours: np.ndarray, theirs: np.ndarray) -> float:
    total = 0.0
    for index in np.ndindex(ours.shape):
        total += (float(ours[index]) - float(theirs[index])) ** 2
    return total / ours.size


def pooled_by_loops(level: np.ndarray) -> np.ndarray:
    """Eq. 1 with p = 3: mean over the window, zeros beyond the border."""
    count, channels, height, width = level.shape
    pooled = np.zeros_like(level)
    for n, c, h, w in np.ndindex(count, channels, height, width):
        total = 0.0
        for row in range(h - 1, h + 2):
            for column in range(w - 1, w + 2):
                if 0 <= row < height and 0 <= column < width:
                    total += float(level[n, c, row, column])
        pooled[n, c, h, w] = total / 9
    return pooled


def doubled_by_loops(level: np.ndarray) -> np.ndarray:
    """Bilinear interpolation to twice the size, with aligned cell centres."""

    def taps(position: int, size: int) -> tuple[int, int, float]:
        source = max((position + 0.5) / 2 - 0.5, 0.0)
        low = min(int(source), size - 1)
        return low, min(low + 1, size - 1), source - low

    count, channels, height, width = level.shape
    grown = np.zeros((count, channels, 2 * height, 2 * width))
    for h in range(2 * height):
        top, bottom, down = taps(h, height)
        for w in range(2 * width):
            left, right, across = taps(w, width)
            upper = level[:, :, top, left] * (1 - across) + level[:, :, top, right] * across
            lower = level[:, :, bottom, left] * (1 - across) + level[:, :, bottom, right] * across
            grown[:, :, h, w] = upper * (1 - down) + lower * down
    return grown


def fused_by_loops(levels: list[torch.Tensor]) -> np.ndarray:
    """Eq. 2: pooled levels on the larger grid, concatenated."""
    fine, coarse = (pooled_by_loops(level.double().numpy()) for level in levels)
    return np.concatenate([fine, doubled_by_loops(coarse)], axis=1)


def test_low_level_loss_sums_mean_squares_of_levels() -> None:
    teacher, student = features(1), features(2)
    expected = sum(
        mean_of_squares(ours.numpy(), theirs.numpy())
        for ours, theirs in zip(student.levels, teacher.levels, strict=True)
    )
    assert float(low_level_loss(teacher.levels, student.levels)) == pytest.approx(expected, rel=1e-5)


def test_high_level_loss_compares_fused_levels() -> None:
    teacher, student = features(1), features(2)
    expected = mean_of_squares(fused_by_loops(list(student.levels)), fused_by_loops(list(teacher.levels)))
    assert float(high_level_loss(teacher.levels, student.levels, 3)) == pytest.approx(expected, rel=1e-5)


def test_logical_loss_is_mean_squared_difference() -> None:
    teacher, student = features(1), features(2)
    expected = mean_of_squares(student.logical.numpy(), teacher.logical.numpy())
    assert float(logical_loss(teacher.logical, student.logical)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("off", ["low", "high", "logical"])
def test_loss_with_weight_zero_is_omitted(off: str) -> None:
    weights = LossWeights.model_validate({"low": 1.0, "high": 1.0, "logical": 1.0, off: 0.0})
    losses = distillation_losses(features(1), features(2), weights, 3)
    assert losses.keys() == {"low", "high", "logical"} - {off}


def test_weighted_sum() -> None:
    losses = {"low": torch.tensor(2.0), "high": torch.tensor(3.0), "logical": torch.tensor(5.0)}
    assert float(weighted_sum(losses, LossWeights(low=1.0, high=10.0, logical=100.0))) == 532.0


def test_perfect_student_has_no_loss() -> None:
    losses = distillation_losses(features(1), features(1), LossWeights(), 3)
    assert {name: float(loss) for name, loss in losses.items()} == {"low": 0.0, "high": 0.0, "logical": 0.0}
