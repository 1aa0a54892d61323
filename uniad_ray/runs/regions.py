"""How a run saw the images of a category: the part that counts, and the range of their values."""

from __future__ import annotations

import numpy as np

from uniad_ray.config.model import FitConfig
from uniad_ray.config.region import RegionMask
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import BundleError, StoreError
from uniad_ray.perception.region import Region
from uniad_ray.runs.reader import RunReader
from uniad_ray.scoring.bundles.store import BundleStore


def region_of(reader: RunReader, category: str) -> Region | None:
    """The region of the bundle that scored a category; None without one, or if the bundle is gone.

    Args:
        reader: The run.
        category: A category of the run.
    """
    config = _config_of(reader, category)
    return None if config is None else Region.of(config)


def bundle_is_gone(reader: RunReader, category: str) -> bool:
    """Whether the bundle that scored a category cannot be read any more, so that its region is unknown.

    Args:
        reader: The run.
        category: A category of the run.
    """
    return _config_of(reader, category) is None


def value_range_of(reader: RunReader, category: str) -> ValueRange | None:
    """The value range of the bundle that scored a category; None without one, or if the bundle is gone.

    Args:
        reader: The run.
        category: A category of the run.
    """
    config = _config_of(reader, category)
    return None if config is None else config.value_range


def view_differences(first: RunReader, second: RunReader) -> list[str]:
    """What two runs see differently of the categories of both, one line each; nothing of bundles that are gone."""
    found = []
    for category in sorted(first.manifest.plan.bundles.keys() & second.manifest.plan.bundles.keys()):
        before, after = _config_of(first, category), _config_of(second, category)
        if before is None or after is None:
            continue
        if not _is_same(before.region, after.region):
            found.append(f"the bundles of {category} have different regions, so other pixels count")
        if before.value_range != after.value_range:
            found.append(f"the bundles of {category} see 16-bit images in different value ranges")
    return found


def _is_same(first: RegionMask | None, second: RegionMask | None) -> bool:
    if first is None or second is None or first == second:
        return first == second
    return np.array_equal(first.pixels, second.pixels)


def _config_of(reader: RunReader, category: str) -> FitConfig | None:
    plan = reader.manifest.plan
    planned = plan.bundles[category]
    try:
        return BundleStore(plan.bundle_root).manifest(category, planned.version).config
    except (BundleError, StoreError):
        return None
