"""Paints what lies outside of a category's region, before any network sees it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import distance_transform_edt

from uniad_ray.archive.images import decode_image, probe_image
from uniad_ray.config.model import FitConfig
from uniad_ray.config.region import RegionMask
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Originals

PAINT: Final = 128
"""Grey value outside of the region: the middle, so that the edge of the region is no stronger than it must be."""
_REACH: Final = 1.5
"""Pixels of the decoded image that an original pixel may affect: 1 by the bilinear filter, and a part by the reduction
of large JPEGs while they are decoded."""

Mask = npt.NDArray[np.bool_]


class Region:
    """The region of a category at the size of its decoded images.

    Pixels outside are painted with one grey value, so that no network, memory or text can depend on them, whatever its
    field of view. A decoded pixel is inside only if all original pixels behind it are.

    Attributes:
        mask: The mask at the size of the original images.
        inside: bool, shape (H, W), at the decoded size.
    """

    def __init__(self, mask: RegionMask, image_size: tuple[int, int], where: str = "region") -> None:
        """Reduces the mask to the decoded size.

        Args:
            mask: The mask.
            image_size: Height and width of the decoded images, pixels.
            where: Origin of the mask, for messages.

        Raises:
            ConfigError: No decoded pixel is inside.
        """
        self.mask = mask
        self._pixels = mask.pixels
        self.inside = _shrunk(_shrunk(self._pixels, image_size[0]).T, image_size[1]).T
        if not self.inside.any():
            raise ConfigError(
                f"{where}: nothing is left of the region at {image_size[1]} x {image_size[0]} pixels; make it larger, "
                "or raise longest_side"
            )

    @classmethod
    def of(cls, config: FitConfig) -> Self | None:
        """The region in the configuration of one category; None if all of the images counts.

        Raises:
            ConfigError: No decoded pixel is inside, or the configuration has no image size.
        """
        return None if config.region is None else cls(config.region, config.decoded_size, config.origin)

    @cached_property
    def digest(self) -> str:
        """sha256 of mask and decoded size."""
        return hashlib.sha256(f"{self.mask.model_dump_json()} {self.inside.shape}".encode()).hexdigest()

    def painted(self, images: np.ndarray) -> np.ndarray:
        """The images with everything outside painted.

        Args:
            images: uint8, shape (..., H, W, 3), at the decoded size; not changed.
        """
        return np.where(self.inside[..., None], images, np.uint8(PAINT))

    @cached_property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the smallest rectangle that holds all decoded pixels inside."""
        rows, columns = (np.flatnonzero(self.inside.any(axis=axis)) for axis in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    def filled(self, image: np.ndarray) -> np.ndarray:
        """The image with every pixel outside replaced by the nearest one inside.

        Unlike paint, it shows no edge that is not in the image. So an image may be moved, relit or compared before it
        is painted, and still depends on nothing outside.

        Args:
            image: uint8, shape (H, W, 3), at the decoded size; not changed.
        """
        return np.asarray(image[self._nearest])

    @cached_property
    def _nearest(self) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = distance_transform_edt(~self.inside, return_distances=False, return_indices=True)
        return rows, columns

    def originals(self, originals: Originals) -> Originals:
        """Originals that are painted when they are read; encoded ones are decoded then."""
        return _PaintedOriginals(originals, self)

    def at(self, size: tuple[int, int]) -> Mask:
        """The mask for images of another size: bool, shape `size`, by the nearest pixel."""
        height, width = size
        if self._pixels.shape == (height, width):
            return self._pixels
        picture = Image.fromarray(self._pixels).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(picture, dtype=bool)

    def cells(self, size: tuple[int, int]) -> Mask:
        """Cells of a map that have a decoded pixel inside: bool, shape `size`."""
        rows = _pooled(self.inside, size[0])
        return _pooled(rows.T, size[1]).T


class _PaintedOriginals(Mapping[str, "bytes | np.ndarray"]):
    def __init__(self, originals: Originals, region: Region) -> None:
        self._originals = originals
        self._region = region

    def __getitem__(self, row_key: str) -> np.ndarray:
        found = self._originals[row_key]
        if isinstance(found, bytes):
            info = probe_image(found)
            found = decode_image(found, (info.height, info.width))
        inside = self._region.at((found.shape[0], found.shape[1]))
        return np.where(inside[..., None], found, np.uint8(PAINT))

    def __iter__(self) -> Iterator[str]:
        return iter(self._originals)

    def __len__(self) -> int:
        return len(self._originals)


def _shrunk(mask: Mask, count: int) -> Mask:
    """Reduces the rows of a mask: true where all rows behind are true."""
    scale = len(mask) / count
    reach = _REACH * max(scale, 1.0)
    found = np.empty((count, mask.shape[1]), dtype=bool)
    for row in range(count):
        middle = (row + 0.5) * scale
        found[row] = mask[max(0, math.floor(middle - reach)) : math.ceil(middle + reach)].all(axis=0)
    return found


def _pooled(mask: Mask, count: int) -> Mask:
    """Reduces or repeats the rows of a mask: true where any row behind is true."""
    scale = len(mask) / count
    return np.stack([mask[math.floor(row * scale) : math.ceil((row + 1) * scale)].any(axis=0) for row in range(count)])
