"""Reads the folder layouts of anomaly data sets, and plain image folders, as a stream of source images."""

from __future__ import annotations

from uniad_ray.archive.layout_names import LAYOUT_NAMES, Label, LayoutName, Split
from uniad_ray.archive.layouts.entries import Rejected, SourceImage, row_key
from uniad_ray.archive.layouts.mvtec import defect_kinds_by_value
from uniad_ray.archive.layouts.source import LAYOUTS, Source, open_source

__all__ = [
    "LAYOUTS",
    "LAYOUT_NAMES",
    "Label",
    "LayoutName",
    "Rejected",
    "Source",
    "SourceImage",
    "Split",
    "defect_kinds_by_value",
    "open_source",
    "row_key",
]
