"""Resampling of fields to a common grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812


def largest_grid(fields: Mapping[str, torch.Tensor], names: Sequence[str]) -> tuple[int, int]:
    """The grid (h, w) with the most cells among the named fields; the first one wins a tie."""
    shapes = [(int(fields[name].shape[-2]), int(fields[name].shape[-1])) for name in names]
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def resize_field(field: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resizes one field to a grid: bilinear to enlarge, mean over cells to shrink.

    Args:
        field: float32, shape (N, C, h, w).
        grid: The target (h, w).

    Returns:
        float32, shape (N, C, *grid).
    """
    height, width = int(field.shape[-2]), int(field.shape[-1])
    if (height, width) == grid:
        return field
    if height >= grid[0] and width >= grid[1]:
        return F.adaptive_avg_pool2d(field, grid)
    return F.interpolate(field, size=grid, mode="bilinear", align_corners=False)


def grid_size(image_size: Sequence[int], longest_side: int) -> tuple[int, int]:
    """Rows and columns of a grid with the aspect ratio of an image; the longest side has `longest_side` cells."""
    factor = longest_side / max(image_size)
    rows, columns = (max(1, round(side * factor)) for side in image_size)
    return rows, columns


def evenly_spaced(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Samples the centre pixels of rows x columns equal blocks: shape (H, W, ...) in, (rows, columns, ...) out."""
    height, width = pixels.shape[:2]
    row = ((np.arange(rows) + 0.5) * height / rows).astype(np.int64)
    column = ((np.arange(columns) + 0.5) * width / columns).astype(np.int64)
    return np.asarray(pixels[row[:, None], column])
