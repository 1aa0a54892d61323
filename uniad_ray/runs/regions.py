"""The regions of a run: which part of the images of a category counts."""

from __future__ import annotations

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
    plan = reader.manifest.plan
    planned = plan.bundles[category]
    try:
        config = BundleStore(plan.bundle_root).manifest(category, planned.version).config
    except (BundleError, StoreError):
        return None
    return Region.of(config)
