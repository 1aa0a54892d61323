"""Light from one direction on a relief, for all synthetic scenes (Blinn and Phong)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.scenes.shapes import Plane

_SHARPNESS = np.float32(24)


class Shading(NamedTuple):
    """Light on each pixel of a relief.

    Attributes:
        towards: Direction to the light in the image, right and down, float64 [2].
        diffuse: Brightness of a matt surface, float32 [h, w]; 1 where it is level.
        highlight: Brightness of a mirroring surface, float32 [h, w], in [0, 1].
    """

    towards: npt.NDArray[np.float64]
    diffuse: Plane
    highlight: Plane


def shade(slope_y: Plane, slope_x: Plane, azimuth: float, light: tuple[float, float]) -> Shading:
    """Shades a relief that is seen from above.

    Args:
        slope_y: Rise per pixel downwards, float32 [h, w].
        slope_x: Rise per pixel to the right, float32 [h, w].
        azimuth: Direction of the light, degrees; 0 is right, 90 is up.
        light: Horizontal and vertical part of the direction to the light, a vector of length 1.
    """
    angle = np.deg2rad(azimuth)
    towards = np.array([np.cos(angle), -np.sin(angle)])
    across, up = light
    direction = np.array([*(across * towards), up], np.float32)
    half = direction + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    steep = np.sqrt(1 + slope_x**2 + slope_y**2)
    diffuse = np.maximum(direction[2] - slope_x * direction[0] - slope_y * direction[1], 0) / (steep * direction[2])
    facing = np.maximum(half[2] - slope_x * half[0] - slope_y * half[1], 0) / steep
    return Shading(towards, diffuse, facing**_SHARPNESS)
