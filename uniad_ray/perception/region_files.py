"""Reads the region of a category from a PNG or from polygons in YAML."""

from __future__ import annotations

from typing import Annotated, Final, Self

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field, ValidationError, model_validator

from uniad_ray.archive.images import decode_mask
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import parse_yaml, validate
from uniad_ray.config.region import MOST_PIXELS, RegionMask
from uniad_ray.errors import ConfigError, ImageError, StoreError

MOST_BYTES: Final = 64 << 20

Coordinate = Annotated[float, Field(allow_inf_nan=False)]
Polygon = Annotated[tuple[tuple[Coordinate, Coordinate], ...], Field(min_length=3)]


class RegionPolygons(StrictModel):
    """A region in YAML; points are `[x, y]` in pixels of the images, from the upper left corner.

    Attributes:
        width: Width of the images, pixels.
        height: Height of the images, pixels.
        include: Polygons that count; empty for the whole image.
        exclude: Polygons that do not count, such as a date stamp.
    """

    width: int = Field(ge=1, le=65_535)
    height: int = Field(ge=1, le=65_535)
    include: tuple[Polygon, ...] = ()
    exclude: tuple[Polygon, ...] = ()

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if self.width * self.height > MOST_PIXELS:
            raise ValueError(f"the images have {self.width} x {self.height} pixels; at most {MOST_PIXELS} are possible")
        return self


def read_region(path: str) -> RegionMask:
    """Reads a region.

    Args:
        path: A mask of any format that `ingest` reads, where pixels above 0 count, or a file of `RegionPolygons` that
            ends in `.yaml` or `.yml`; local or in S3.

    Raises:
        ConfigError: The file cannot be read, is no mask, has a wrong key or value, or no pixel counts.
    """
    try:
        data = Location.parse(path).read_bytes(max_bytes=MOST_BYTES)
        mask = _drawn(data, path) if path.endswith((".yaml", ".yml")) else decode_mask(data) > 0
    except (StoreError, ImageError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the region cannot be read: {error}; give a PNG mask or a YAML file") from error
    try:
        return RegionMask.of(mask)
    except ValidationError:
        raise ConfigError(f"{path}: no pixel of the region counts; pixels that count are white") from None


def _drawn(data: bytes, path: str) -> np.ndarray:
    document = parse_yaml(data.decode("utf-8"), where=path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected width, height, include and exclude")
    found = validate(RegionPolygons, document, where=path)
    picture = Image.new("1", (found.width, found.height), 0 if found.include else 1)
    draw = ImageDraw.Draw(picture)
    for value, polygons in ((1, found.include), (0, found.exclude)):
        for polygon in polygons:
            draw.polygon([(x, y) for x, y in polygon], fill=value)
    return np.asarray(picture, dtype=bool)
