"""From a grid of patch distances to an evidence map."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import gaussian_filter


def anomaly_maps(grids: np.ndarray, side: int, smoothing: float) -> np.ndarray:
    """Upsamples grids of distances bilinearly and smooths them, on the scale of the distances.

    Args:
        grids: float32, shape (N, h, w).
        side: Height and width of the maps.
        smoothing: Deviation of the Gaussian in map pixels; 0 smooths nothing. The border is repeated outwards, so that
            a constant map stays as it is.

    Returns:
        float32, shape (N, side, side), within the range of the distances up to rounding.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(grids, dtype=np.float32))[:, None]
    maps = F.interpolate(tensor, size=(side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
    if smoothing > 0.0:
        maps = gaussian_filter(maps, sigma=smoothing, mode="nearest", axes=(1, 2))
    return np.asarray(maps, dtype=np.float32)


def peak_position(anomaly_map: np.ndarray) -> tuple[float, float]:
    """Where a map of shape (h, w) is highest: (row, column) of the cell's centre, each in 0..1 from the top left."""
    row, column = np.unravel_index(int(np.argmax(anomaly_map)), anomaly_map.shape)
    return (float(row) + 0.5) / anomaly_map.shape[0], (float(column) + 0.5) / anomaly_map.shape[1]
