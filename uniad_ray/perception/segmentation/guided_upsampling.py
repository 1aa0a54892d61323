"""Edge-preserving upsampling of coarse maps to the size of an image: the fast guided filter."""

from __future__ import annotations

import torch
from torch.nn import functional


def guided_upsample(
    coarse: torch.Tensor, image: torch.Tensor, coarse_image: torch.Tensor, radius: int, epsilon: float
) -> torch.Tensor:
    """Upsamples maps with a colour image as guide (He, Sun and Tang 2013, eq. 19-21; He and Sun 2015).

    In every window of the coarse grid, a linear function of the colour is fitted to each map. The coefficients are
    averaged over all windows that contain a cell, upsampled bilinearly and applied to the colours of the full image.

    Args:
        coarse: float32, shape (K, h, w).
        image: The guide, values in 0..1: float32, shape (3, H, W).
        coarse_image: The guide on the coarse grid: float32, shape (3, h, w).
        radius: Windows are 2 radius + 1 cells wide, clipped at the border.
        epsilon: Regularisation, > 0; colour contrasts below its root are smoothed.

    Returns:
        float32, shape (K, H, W).
    """
    labels, height, width = coarse.shape
    colour_squares = (coarse_image[:, None] * coarse_image).flatten(0, 1)
    products = (coarse_image[:, None] * coarse).flatten(0, 1)
    means = _window_means(torch.cat([coarse_image, coarse, colour_squares, products]), radius)
    mean_colour, mean_map, mean_squares, mean_products = torch.split(means, [3, labels, 9, 3 * labels])
    variance = mean_squares.reshape(3, 3, height, width) - mean_colour[:, None] * mean_colour
    covariance = mean_products.reshape(3, labels, height, width) - mean_colour[:, None] * mean_map
    penalised = variance.permute(2, 3, 0, 1) + epsilon * torch.eye(3, device=coarse.device)
    slope = torch.linalg.solve(penalised, covariance.permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
    offset = mean_map - (slope * mean_colour[:, None]).sum(dim=0)
    coefficients = _window_means(torch.cat([slope.flatten(0, 1), offset]), radius)
    size = (int(image.shape[1]), int(image.shape[2]))
    upsampled = functional.interpolate(coefficients[None], size, mode="bilinear", align_corners=False)[0]
    red, green, blue, offset = torch.split(upsampled, labels)
    return offset.addcmul(red, image[0]).addcmul_(green, image[1]).addcmul_(blue, image[2])


def _window_means(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """Means over windows of 2 radius + 1 cells, clipped at the border; shape (C, h, w) in and out."""
    return functional.avg_pool2d(maps[None], 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)[0]
