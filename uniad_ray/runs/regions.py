"""How a run saw the images of a category: the part that counts, and the range of their values."""

from __future__ import annotations

from uniad_ray.config.model import FitConfig, ValueRange
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


def value_range_of(reader: RunReader, category: str) -> ValueRange | None:
    """The value range of the bundle that scored a category; None without one, or if the bundle is gone.

    Args:
        reader: The run.
        category: A category of the run.
    """
    config = _config_of(reader, category)
    return None if config is None else config.value_range


def _config_of(reader: RunReader, category: str) -> FitConfig | None:
    plan = reader.manifest.plan
    planned = plan.bundles[category]
    try:
        return BundleStore(plan.bundle_root).manifest(category, planned.version).config
    except (BundleError, StoreError):
        return None
