"""Grounds that parts lie on: plain, cloth, wood, brushed metal, printed card and belt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.archive.scenes.damage import Surface
from uniad_ray.archive.scenes.products.model import Ground, Rgb
from uniad_ray.archive.scenes.shapes import Plane


def draw_ground(
    ground: Ground,
    colour: Rgb,
    shape: tuple[int, int],
    product: np.random.Generator,
    image: np.random.Generator,
    resolution: float = 1.0,
) -> Surface:
    """Draws a ground.

    Args:
        ground: Which one.
        colour: Its colour.
        shape: Height and width, pixels.
        product: Generator of what all images of the product share; the same state for each image.
        image: Generator of what varies from image to image.
        resolution: Pixels per pixel of the product's own size. Patterns grow with it; grain stays as fine as a pixel.
    """
    height, width = shape
    rows, columns = np.meshgrid(
        np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij", sparse=True
    )
    tone, relief, gloss = _GROUNDS[ground](rows, columns, product, image, resolution)
    relief = np.float32(resolution) * relief
    albedo = np.asarray(colour, np.float32) * (1 + tone[..., None])
    return Surface(albedo.astype(np.float32), relief.astype(np.float32), np.full(shape, gloss, np.float32))


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float | tuple[float, float]) -> Plane:
    """Draws noise of unit deviation with grains of about `sigma` pixels (rows, columns)."""
    across = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
    # Coarse noise is drawn small and enlarged, which is faster.
    steps = tuple(max(1, int(one / 3)) for one in across)
    small = tuple(-(-side // step) + 1 for side, step in zip(shape, steps, strict=True))
    smooth = ndimage.gaussian_filter(
        rng.standard_normal(small, dtype=np.float32),
        [one / step for one, step in zip(across, steps, strict=True)],
        truncate=3.0,
        mode="wrap",
    )
    if max(steps) > 1:
        smooth = ndimage.zoom(smooth, steps, order=1)
    smooth = smooth[: shape[0], : shape[1]]
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


_Look = tuple[Plane, Plane, float]


def _size(rows: Plane, columns: Plane) -> tuple[int, int]:
    return rows.shape[0], columns.shape[1]


def _plain(
    rows: Plane, columns: Plane, product: np.random.Generator, image: np.random.Generator, scale: float
) -> _Look:
    shape = _size(rows, columns)
    strength = product.uniform(0.01, 0.04)
    tone = strength * (0.5 * noise(image, shape, 1.0) + noise(image, shape, scale * product.uniform(15, 60)))
    return tone, np.zeros(shape, np.float32), 0.05


def _cloth(
    rows: Plane, columns: Plane, product: np.random.Generator, image: np.random.Generator, scale: float
) -> _Look:
    shape = _size(rows, columns)
    pitch = np.float32(scale * product.uniform(4.0, 9.0))
    shift_row, shift_column = image.uniform(0, 2 * np.pi, 2)
    warp = 0.6 * noise(image, shape, scale * 25.0)
    weft = np.sin(rows * (2 * np.pi / pitch) + shift_row + warp)
    warp_threads = np.sin(columns * (2 * np.pi / pitch) + shift_column + 0.6 * noise(image, shape, scale * 25.0))
    weave = np.where(weft * warp_threads > 0, weft, warp_threads)
    tone = 0.10 * weave + 0.05 * noise(image, shape, 0.8)
    return tone, 0.6 * weave, 0.0


def _wood(rows: Plane, columns: Plane, product: np.random.Generator, image: np.random.Generator, scale: float) -> _Look:
    shape = _size(rows, columns)
    spacing = scale * product.uniform(10, 26)
    bend = noise(image, shape, (scale * 25.0, scale * 160.0)) * np.float32(scale * product.uniform(4, 12))
    rings = np.sin((rows + bend + image.uniform(0, spacing)) * np.float32(2 * np.pi / spacing))
    fibre = noise(image, shape, (0.7, scale * 14.0))
    tone = 0.13 * rings * np.abs(rings) + 0.06 * fibre
    return tone, 0.15 * fibre, 0.08


def _brushed(
    rows: Plane, columns: Plane, product: np.random.Generator, image: np.random.Generator, scale: float
) -> _Look:
    shape = _size(rows, columns)
    lines = noise(image, shape, (0.6, scale * product.uniform(40, 120)))
    return 0.07 * lines + 0.03 * noise(image, shape, scale * 80.0), 0.12 * lines, 0.35


def _card(rows: Plane, columns: Plane, product: np.random.Generator, image: np.random.Generator, scale: float) -> _Look:
    shape = _size(rows, columns)
    tone = 0.012 * noise(image, shape, 1.2)
    # Every image has the same printed frame.
    inset = product.uniform(0.02, 0.05) * min(shape)
    edge = np.minimum(np.minimum(rows, shape[0] - 1 - rows), np.minimum(columns, shape[1] - 1 - columns))
    tone = tone - 0.5 * np.clip(scale + 0.5 - np.abs(edge - inset), 0, 1)
    return np.asarray(tone), np.zeros(shape, np.float32), 0.1


def _belt(rows: Plane, columns: Plane, product: np.random.Generator, image: np.random.Generator, scale: float) -> _Look:
    shape = _size(rows, columns)
    pitch = np.float32(scale * product.uniform(12, 24))
    travel = np.float32(image.uniform(0, pitch))
    diagonal = np.sin((rows + columns + travel) * (2 * np.pi / pitch))
    other = np.sin((rows - columns + travel) * (2 * np.pi / pitch))
    ribs = np.maximum(diagonal, other)
    return np.asarray(0.08 * ribs + 0.05 * noise(image, shape, 1.0)), np.asarray(0.8 * ribs), 0.05


_GROUNDS: Final[dict[Ground, Callable[[Plane, Plane, np.random.Generator, np.random.Generator, float], _Look]]] = {
    Ground.PLAIN: _plain,
    Ground.CLOTH: _cloth,
    Ground.WOOD: _wood,
    Ground.BRUSHED: _brushed,
    Ground.CARD: _card,
    Ground.BELT: _belt,
}
