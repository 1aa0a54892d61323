"""Draws images of a run for reports; an unreadable image becomes a placeholder with the reason."""

from __future__ import annotations

import logging
from collections.abc import Collection

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.errors import ArchiveError, StoreError
from uniad_ray.reporting.drawing.pictures import THUMBNAIL_SIDE, Picture, draw_picture, missing_picture
from uniad_ray.reporting.model import MapScale
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.regions import region_of, value_range_of

_logger = logging.getLogger(__name__)


def draw_rows(reader: RunReader, category: str, row_keys: Collection[str], scale: MapScale) -> dict[str, Picture]:
    """Draws some rows of a category with their maps and masks.

    Args:
        reader: The run.
        category: The category.
        row_keys: Keys of the rows; all are in memory at once.
        scale: Colour scale of the maps.

    Returns:
        Layers by row key, one entry for every given key.
    """
    maps = reader.maps(category, row_keys)
    try:
        sources = reader.images(category, row_keys)
    except (ArchiveError, StoreError) as error:
        _logger.warning("images cannot be shown: %s", error)
        return dict.fromkeys(row_keys, missing_picture(f"The archive cannot be read: {error}"))
    region, value_range = region_of(reader, category), value_range_of(reader, category)
    drawn: dict[str, Picture] = {}
    for key in row_keys:
        source = sources.get(key)
        if source is None or source.image is None:
            drawn[key] = missing_picture("The archive no longer has this image.")
            continue
        masks = [mask.data for mask in source.masks]
        size = (source.height, source.width)
        inside = None if region is None else region.at(fitted_size(size, THUMBNAIL_SIDE))
        drawn[key] = draw_picture(source.image, size, masks, maps.get(key), scale, inside, value_range)
    return drawn
