"""Reads folder layouts of anomaly data sets, plain folders and image manifests as a stream of source images."""

from __future__ import annotations

from uniad_ray.archive.layouts.entries import Attachment, Label, Rejected, SourceImage, Split, row_key
from uniad_ray.archive.layouts.manifests import ManifestSource, open_manifest
from uniad_ray.archive.layouts.registry import data_set_layouts, layout_names
from uniad_ray.archive.layouts.source import Source, open_source

__all__ = [
    "Attachment",
    "Label",
    "ManifestSource",
    "Rejected",
    "Source",
    "SourceImage",
    "Split",
    "data_set_layouts",
    "layout_names",
    "open_manifest",
    "open_source",
    "row_key",
]
