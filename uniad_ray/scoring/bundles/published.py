"""Published bundles of categories, as recorded in a plan."""

from __future__ import annotations

from collections.abc import Iterable

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError
from uniad_ray.scoring.bundles.store import BundleStore


class PlannedBundle(StrictModel):
    """Version and digest of the bundle of a category."""

    version: str
    digest: str


def published_bundles(store: BundleStore, categories: Iterable[str], archive: Location) -> dict[str, PlannedBundle]:
    """Return the currently published bundles by category.

    Raises:
        BundleError: A category has no published bundle.
    """
    pointers = {category: store.pointer(category) for category in sorted(categories)}
    missing = [category for category, pointer in pointers.items() if pointer is None]
    if missing:
        raise BundleError(
            f"{store.root}: no published bundle for {', '.join(missing)}; run `uniad-ray fit {archive} --bundles "
            f"{store.root}`, or select other categories with --category"
        )
    return {
        category: PlannedBundle(version=pointer.version, digest=pointer.digest)
        for category, pointer in pointers.items()
        if pointer is not None
    }
