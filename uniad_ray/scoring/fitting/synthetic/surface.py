"""Synthetic surface defects, from pasted windows and scratches to flecks of 0.1 % of the image.

They use no segmentation, so experts that share the segmenter get no advantage. Tones come from the image itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import ndimage

from uniad_ray.scoring.fitting.synthetic.parts import Parts

_SMALL_SIDES: Final = (0.036, 0.072)
"""Sides of small surface anomalies, as fractions of the image's; an ellipse of these sides takes 0.1 to 0.4 %."""


def _window(image: np.ndarray, rng: np.random.Generator, least: float, most: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of a window; sides are between two fractions of those of the image."""
    height, width = (max(2, int(side * rng.uniform(least, most))) for side in image.shape[:2])
    return int(rng.integers(image.shape[0] - height + 1)), int(rng.integers(image.shape[1] - width + 1)), height, width


def cut_paste(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Paste a small window, slightly brighter or darker, elsewhere in the image (CutPaste)."""
    image = parts.image
    top, left, height, width = _window(image, rng, 0.04, 0.15)
    down, across = (
        int(rng.integers(side - length + 1)) for side, length in zip(image.shape[:2], (height, width), strict=True)
    )
    piece = image[down : down + height, across : across + width].astype(np.float32)
    synthetic = image.copy()
    synthetic[top : top + height, left : left + width] = np.clip(piece * rng.uniform(0.8, 1.2), 0, 255)
    return synthetic


def _strokes(image: np.ndarray, rng: np.random.Generator, least: float = 0.08, most: float = 0.3) -> np.ndarray:
    """Draw a wavy line with values in [0, 1]: float32, shape (H, W); its length is a fraction of the shorter side."""
    height, width = image.shape[:2]
    length = rng.uniform(least, most) * min(height, width)
    steps = np.arange(int(length) * 2) / 2
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.03, size=len(steps)))
    rows = rng.uniform(0.1, 0.9) * height + np.cumsum(np.sin(angle)) / 2
    columns = rng.uniform(0.1, 0.9) * width + np.cumsum(np.cos(angle)) / 2
    drawn = np.zeros((height, width), dtype=np.float32)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    drawn[rows[inside].astype(int), columns[inside].astype(int)] = 1.0
    thick = ndimage.gaussian_filter(drawn, rng.uniform(0.004, 0.01) * min(height, width))
    return np.asarray(thick / max(float(thick.max()), 1e-6), dtype=np.float32)


def _toned(image: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend the image towards a darker or brighter version of one of its colours, weighted by `shares`."""
    colour = image[int(rng.integers(image.shape[0])), int(rng.integers(image.shape[1]))].astype(np.float32)
    tone = np.clip(colour * rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.25, 2.0)]), 0, 255)
    share = (shares * rng.uniform(0.3, 0.9))[..., None]
    return np.asarray(np.rint(image * (1.0 - share) + tone * share), dtype=np.uint8)


def scratch(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Draw a darker or brighter line."""
    return _toned(parts.image, _strokes(parts.image, rng), rng)


def _blob(image: np.ndarray, rng: np.random.Generator, least: float = 0.05, most: float = 0.2) -> np.ndarray:
    """Draw a soft irregular blob with values in [0, 1]: float32, shape (H, W); sides are fractions of the image."""
    top, left, height, width = _window(image, rng, least, most)
    rows = (np.arange(image.shape[0]) - top - height / 2) / (height / 2)
    columns = (np.arange(image.shape[1]) - left - width / 2) / (width / 2)
    waves = ndimage.gaussian_filter(rng.standard_normal(image.shape[:2]), min(height, width) / 4)
    distance = np.hypot(rows[:, None], columns) + 0.3 * waves / max(float(waves.std()), 1e-6)
    return np.asarray(np.clip((1.0 - distance) * 3.0, 0.0, 1.0), dtype=np.float32)


def stain(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Darken or brighten a spot."""
    return _toned(parts.image, _blob(parts.image, rng), rng)


def fleck(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Stain 0.1 to 0.4 % of the image."""
    return _toned(parts.image, _blob(parts.image, rng, *_SMALL_SIDES), rng)


def nick(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Scratch a few pixels."""
    return _toned(parts.image, _strokes(parts.image, rng, *_SMALL_SIDES), rng)


def warp(parts: Parts, others: Sequence[Parts], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Displace the surface within a blob, like a dent."""
    image = parts.image
    shares = _blob(image, rng)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.06) * min(image.shape[:2])
    rows, columns = np.indices(image.shape[:2])
    places = (rows + shares * reach * np.sin(angle), columns + shares * reach * np.cos(angle))
    channels = [ndimage.map_coordinates(image[..., channel], places, order=1, mode="nearest") for channel in range(3)]
    return np.asarray(np.stack(channels, axis=-1), dtype=np.uint8)
