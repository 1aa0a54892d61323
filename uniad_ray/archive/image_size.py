"""Sizes of decoded images: one size per category, which keeps the aspect ratio of its normal images up to a bound."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
from PIL import Image

from uniad_ray.archive.manifest import ArchiveManifest, chunks
from uniad_ray.archive.normal_rows import read_normal_rows, read_rows
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import SMALLEST_SIDE, FitConfig
from uniad_ray.errors import ArchiveError


def fitted_size(size: Sequence[int], longest_side: int, smallest: int = 1) -> tuple[int, int]:
    """Height and width with the same aspect ratio and no side above `longest_side`; never enlarges.

    Args:
        size: Height and width, pixels.
        longest_side: Maximum of both, pixels.
        smallest: Minimum of each, pixels; it takes precedence over the aspect ratio.
    """
    height, width = size
    factor = min(1.0, longest_side / max(height, width))
    return max(smallest, round(height * factor)), max(smallest, round(width * factor))


def reduced(image: np.ndarray, longest_side: int) -> np.ndarray:
    """An image with no side above `longest_side`, in its aspect ratio; smaller images keep their size.

    Args:
        image: uint8, shape (H, W, 3), RGB.
        longest_side: Maximum height and width, pixels.
    """
    height, width = fitted_size(image.shape[:2], longest_side)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def with_image_size(config: FitConfig, archive: Location, manifest: ArchiveManifest, category: str) -> FitConfig:
    """The configuration of a category: with its image size, region and classes, and experts for images of this size.

    The size is the median height and the median width of the category's normal images, reduced until no side is above
    `longest_side`; an image size that is set is kept. Without normal images, all images of the category count. No image
    is decoded.

    Args:
        config: A fit configuration.
        archive: Root of the archive.
        manifest: Its manifest.
        category: Category of the archive.

    Raises:
        ArchiveError: The category has no images, or a shard is corrupt.
        ConfigError: The expert set is for larger images only, or the chosen class lists have none for this category.
    """
    config = config.of_category(category)
    if config.image_size is not None and config.large_images is None:
        return config
    columns, exclude = ("height", "width"), config.normal_images.exclude
    sizes = [values for values, _, _ in read_normal_rows(archive, manifest, category, columns, exclude)]
    sizes = sizes or [values for values, *_ in read_rows(archive, chunks(manifest, categories=[category]), columns)]
    if not sizes:
        raise ArchiveError(f"{archive}: category {category!r} has no images; ingest some")
    middle = [round(median(side)) for side in zip(*sizes, strict=True)]
    size = config.image_size or fitted_size(middle, config.longest_side, SMALLEST_SIDE)
    return config.for_images(*middle).model_copy(update={"image_size": size})
