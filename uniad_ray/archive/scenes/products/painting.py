"""Draws an image of a product: ground, fixtures, parts and flaws as colour and relief, then light, camera and noise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from uniad_ray.archive.scenes.damage import BoolPlane, Surface
from uniad_ray.archive.scenes.products.grounds import noise
from uniad_ray.archive.scenes.products.model import Kind, Part, View
from uniad_ray.archive.scenes.products.shapes import REACH
from uniad_ray.archive.scenes.shading import shade
from uniad_ray.archive.scenes.shapes import Plane

_SHADOW_DEPTH = 0.45


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a part lies.

    Attributes:
        rows: Rows of the window that contains it.
        columns: Columns of the window.
        cover: Covered share of each pixel of the window, float32 [h, w].
        relief: Height above the ground, pixels, float32 [h, w].
        along: Coordinate along the part, in units of its outline, float32 [h, w].
        across: Coordinate across it.
    """

    rows: slice
    columns: slice
    cover: Plane
    relief: Plane
    along: Plane
    across: Plane

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return self.rows, self.columns


def footprint(part: Part, kind: Kind, shape: tuple[int, int], resolution: float = 1.0) -> Footprint | None:
    """Computes where a part lies; None if it is outside the image.

    Args:
        part: The part, not a wire.
        kind: Its kind.
        shape: Height and width of the image, pixels.
        resolution: Pixels per pixel of the product's own size, in which the relief of a kind is stated.
    """
    size = kind.size * part.scale
    reach = REACH * size * max(1.0, part.stretch) + 2
    rows, columns = _span(part.y, reach, shape[0]), _span(part.x, reach, shape[1])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - part.y)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5 - part.x)
    turn = np.deg2rad(part.angle)
    cos, sin = np.float32(np.cos(turn) / size), np.float32(np.sin(turn) / size)
    along = np.asarray((x * cos + y * sin) / np.float32(part.stretch), np.float32)
    across = np.asarray(y * cos - x * sin, np.float32)
    distance = kind.outline.distance(along, across)
    cover = np.clip(np.float32(0.5) - distance * np.float32(size), 0, 1).astype(np.float32)
    ramp = np.clip(-distance / np.float32(kind.bevel), 0, 1)
    return Footprint(rows, columns, cover, np.float32(resolution * kind.relief) * ramp * (2 - ramp), along, across)


def wire_footprint(part: Part, shape: tuple[int, int]) -> Footprint:
    """Computes where a wire lies: a round cable along its path."""
    points, radius = np.asarray(part.path, np.float32), part.radius
    low, high = points.min(axis=0) - radius - 2, points.max(axis=0) + radius + 2
    rows = slice(max(0, int(low[1])), min(shape[0], int(high[1]) + 1))
    columns = slice(max(0, int(low[0])), min(shape[1], int(high[0]) + 1))
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5)
    nearest = np.full((rows.stop - rows.start, columns.stop - columns.start), np.inf, np.float32)
    for (x1, y1), (x2, y2) in pairwise(points):
        dx, dy = x2 - x1, y2 - y1
        share = np.clip(((x - x1) * dx + (y - y1) * dy) / max(float(dx * dx + dy * dy), 1e-6), 0, 1)
        np.minimum(nearest, np.hypot(x - x1 - share * dx, y - y1 - share * dy), out=nearest)
    cover = np.clip(np.float32(radius + 0.5) - nearest, 0, 1).astype(np.float32)
    relief = np.sqrt(np.maximum(radius**2 - nearest**2, 0)).astype(np.float32)
    return Footprint(rows, columns, cover, relief, nearest / np.float32(radius), nearest / np.float32(radius))


def paint_part(surface: Surface, place: Footprint, kind: Kind, part: Part, rng: np.random.Generator) -> None:
    """Paints a part onto a surface in place."""
    window, cover = place.window, place.cover
    colour = np.asarray(part.colour or kind.colour, np.float32) * np.float32(rng.uniform(0.97, 1.03))
    tone = np.float32(kind.grain) * noise(rng, (cover.shape[0], cover.shape[1]), 1.0)
    painted = colour * (1 + tone[..., None])
    surface.albedo[window] += cover[..., None] * (painted - surface.albedo[window])
    surface.gloss[window] += cover * (np.float32(kind.gloss) - surface.gloss[window])
    if kind.relief > 0:
        surface.height[window] += cover * (place.relief + np.float32(0.5) - surface.height[window])


def photograph(
    surface: Surface, view: View, rng: np.random.Generator, resolution: float = 1.0
) -> npt.NDArray[np.uint8]:
    """Lights a surface and takes its picture; its shadows are `resolution` times as long.

    Returns:
        uint8 [h, w, 3], RGB.
    """
    height = ndimage.gaussian_filter(surface.height, 0.6, truncate=3.0)
    slope_y, slope_x = np.gradient(height)
    shading = shade(slope_y, slope_x, view.azimuth, (0.5, 0.866))
    highlight = surface.gloss * shading.highlight
    blurred = ndimage.gaussian_filter(surface.height, 1.5 * resolution, truncate=2.5)
    blocker = ndimage.shift(blurred, -4.0 * resolution * shading.towards[::-1], order=1, mode="nearest")
    shadow = 1 - _SHADOW_DEPTH * np.clip((blocker - height - 0.5 * resolution) / (4.0 * resolution), 0, 1)
    image = (
        surface.albedo * ((0.32 + 0.64 * shading.diffuse * shadow)[..., None]) + (0.2 * highlight * shadow)[..., None]
    )
    rows = np.linspace(-1, 1, image.shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, image.shape[1], dtype=np.float32)[None, :]
    image *= (1 - 0.12 * (rows**2 + columns**2) / 2)[..., None]
    image *= np.asarray(view.tint, np.float32) * np.float32(view.exposure)
    grey = 255 * np.clip(image, 0, 1) ** np.float32(1 / 2.2)
    grey += np.float32(view.noise) * rng.standard_normal(grey.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)


def visible_masks(places: list[Footprint | None], shape: tuple[int, int]) -> list[BoolPlane]:
    """Computes the visible pixels of each part, bool [h, w]; later parts lie on top."""
    owner = np.full(shape, -1, np.int32)
    for index, place in enumerate(places):
        if place is not None:
            owner[place.window][place.cover > 0.5] = index
    return [np.asarray(owner == index) for index in range(len(places))]


def _span(middle: float, reach: float, most: int) -> slice:
    return slice(max(0, int(np.floor(middle - reach))), min(most, int(np.ceil(middle + reach)) + 1))
