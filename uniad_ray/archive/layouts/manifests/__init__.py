"""Reads image manifests: files that list images with their labels, masks and metadata, one image a line."""

from __future__ import annotations

from uniad_ray.archive.layouts.manifests.source import ManifestSource, open_manifest

__all__ = ["ManifestSource", "open_manifest"]
