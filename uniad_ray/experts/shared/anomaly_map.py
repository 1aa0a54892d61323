"""Turns a grid of patch distances into an anomaly map."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import gaussian_filter


def anomaly_maps(grids: np.ndarray, side: int, smoothing: float) -> np.ndarray:
    """Resizes grids of distances to maps and smooths them; values keep the scale of the distances.

    A smaller grid is upsampled bilinearly. In a larger one, a pixel of the map takes the maximum of the cells that it
    touches: an average would hide small defects.

    Args:
        grids: float32, shape (N, h, w).
        side: Height and width of the maps.
        smoothing: Standard deviation of the Gaussian, map pixels; 0 disables smoothing. The border is repeated
            outwards, so a constant map stays constant.

    Returns:
        float32, shape (N, side, side), within the range of the distances up to rounding.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(grids, dtype=np.float32))[:, None]
    tensor = F.adaptive_max_pool2d(tensor, (min(grids.shape[1], side), min(grids.shape[2], side)))
    maps = F.interpolate(tensor, size=(side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
    if smoothing > 0.0:
        maps = gaussian_filter(maps, sigma=smoothing, mode="nearest", axes=(1, 2))
    return np.asarray(maps, dtype=np.float32)


def peak_position(anomaly_map: np.ndarray) -> tuple[float, float]:
    """Position of the maximum of a map, shape (h, w): (row, column) of the cell's centre, in 0..1 from the top left."""
    row, column = np.unravel_index(int(np.argmax(anomaly_map)), anomaly_map.shape)
    return (float(row) + 0.5) / anomaly_map.shape[0], (float(column) + 0.5) / anomaly_map.shape[1]
