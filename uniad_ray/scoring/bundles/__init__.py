"""Bundles: the stored form of a fitted category, its versions, and its reference and gallery images."""

from __future__ import annotations

from uniad_ray.scoring.bundles.bundle import Bundle, BundleManifest, read_bundle, read_bundle_manifest
from uniad_ray.scoring.bundles.gallery import Gallery, NearestNormal
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.bundles.versions import BundleList, BundleVersion, list_bundles, publish_bundle

__all__ = [
    "Bundle",
    "BundleList",
    "BundleManifest",
    "BundleStore",
    "BundleVersion",
    "Gallery",
    "NearestNormal",
    "list_bundles",
    "publish_bundle",
    "read_bundle",
    "read_bundle_manifest",
]
