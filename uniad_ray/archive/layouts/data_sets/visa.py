"""The folders and tables of VisA.

    split_csv/1cls.csv                      object,split,label,image,mask
    <object>/image_anno.csv                 image,label,mask; the label names the defects, such as "bent,melded"
    <object>/Data/Images/Normal/0000.JPG
    <object>/Data/Images/Anomaly/000.JPG
    <object>/Data/Masks/Anomaly/000.png     grey values are defect numbers

Without `1cls.csv` every image has split `archive`. The tables of the two-class protocols are not read: they put
anomalous images into the training split, and a fit uses only normal images.

Zou et al., "SPot-the-Difference Self-supervised Pre-training for Anomaly Detection and Segmentation", ECCV 2022.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from uniad_ray.archive.layouts.base import (
    CATEGORY,
    TELLING_CATEGORY,
    Companion,
    Companions,
    ImagePlace,
    Layout,
    MaskPlace,
    Place,
    Stray,
    stem,
)
from uniad_ray.archive.layouts.tables import read_rows
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError

SPLIT_TABLE = "split_csv/1cls.csv"

_IMAGE = re.compile(CATEGORY + r"(?P<within>Data/Images/(?P<kind>(?i:normal|anomaly))/(?P<rest>.+))")
_MASK = re.compile(CATEGORY + r"Data/Masks/(?P<kind>(?i:normal|anomaly))/(?P<rest>.+)")
_ANNOTATIONS = re.compile(CATEGORY + r"image_anno\.csv")
_LABELS = {"normal": "normal", "anomaly": "anomalous"}
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class VisaLayout(Layout):
    """The data set VisA, or one of its objects.

    Attributes:
        rows: Split and label by image path within the source; None without a table of splits.
        kinds: Defects by object folder and by image path within it.
    """

    name: ClassVar[str] = "visa"
    where: ClassVar[str] = "Data/Images/ or Data/Masks/ of an object"
    signature: ClassVar[re.Pattern[str]] = re.compile(TELLING_CATEGORY + r"Data/Images/(?i:normal|anomaly)/.")

    rows: Mapping[str, tuple[str, str]] | None = None
    kinds: Mapping[tuple[str | None, str], str] = field(default_factory=dict)

    def place(self, path: str) -> Place | None:
        """Takes split and label from the table; without a table, takes the label from the folder."""
        if match := _IMAGE.fullmatch(path):
            return self._image(match)
        if match := _MASK.fullmatch(path):
            return MaskPlace(match["category"], _mask_key(match))
        if path == SPLIT_TABLE:
            return Companion(None)
        if match := _ANNOTATIONS.fullmatch(path):
            return Companion(match["category"])
        return None

    def with_companions(self, companions: Companions, categories: Collection[str]) -> VisaLayout:
        """Reads the tables of splits and of defects."""
        layout = self
        kinds: dict[tuple[str | None, str], str] = {}
        for category, info in companions:
            if info.relative == SPLIT_TABLE:
                rows, expected = _read_splits(info.location, categories)
                layout = replace(layout, rows=rows, expected=expected)
            else:
                kinds |= {(category, within): kind for within, kind in _read_kinds(info.location).items()}
        return replace(layout, kinds=kinds)

    def _image(self, match: re.Match[str]) -> Place:
        category = match["category"]
        split, label = "archive", _LABELS[match["kind"].lower()]
        if self.rows is not None:
            if match.string not in self.rows:
                return Stray(category, f"not listed in {SPLIT_TABLE}")
            split, label = self.rows[match.string]
        kind = self.kinds.get((category, match["within"]), "anomaly")
        return ImagePlace(
            category=category,
            path=match["within"],
            split=split,
            label=label,
            defect_kind=kind if label == "anomalous" else None,
            mask_key=_mask_key(match),
        )


LAYOUT = VisaLayout()


def _mask_key(match: re.Match[str]) -> str:
    return f"{match['kind'].lower()}/{stem(match['rest'])}"


def _read_splits(location: Location, categories: Collection[str]) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Reads split and label by image path, and the files that must exist."""
    rows: dict[str, tuple[str, str]] = {}
    expected: dict[str, str] = {}
    for line, row in read_rows(location, ("object", "split", "label", "image", "mask")):
        where = f"{location}, line {line}"
        category, image, mask = row["object"], row["image"], row["mask"]
        if row["split"] not in _SPLITS:
            raise ArchiveError(
                f"{where}: split {row['split']!r}; it must be {', '.join(_SPLITS[:-1])} or {_SPLITS[-1]}"
            )
        if row["label"] not in _LABELS:
            raise ArchiveError(f"{where}: label {row['label']!r}; it must be {' or '.join(_LABELS)}")
        match = _IMAGE.fullmatch(image)
        if match is None or match["category"] != category:
            raise ArchiveError(
                f"{where}: {image!r} is not an image of object {category!r}; it must be in Data/Images/ of the object"
            )
        if image in rows:
            raise ArchiveError(f"{where}: {image!r} appears a second time; remove one of the rows")
        own = _MASK.fullmatch(mask)
        if mask and (own is None or (own["category"], _mask_key(own)) != (category, _mask_key(match))):
            raise ArchiveError(
                f"{where}: {mask!r} is not a mask of {image!r}; their names may differ only in the suffix"
            )
        rows[image] = (row["split"], _LABELS[row["label"]])
        if category not in categories:
            expected[f"{category}/Data/Images"] = f"{SPLIT_TABLE} lists images in it, but it does not exist"
            continue
        for path in filter(None, (image, mask)):
            expected[path] = f"{SPLIT_TABLE} lists it in line {line}, but it does not exist"
    return rows, expected


def _read_kinds(location: Location) -> dict[str, str]:
    """Reads the defects of anomalous images, by path within the object."""
    kinds = {}
    for _, row in read_rows(location, ("image", "label")):
        match = _IMAGE.fullmatch(row["image"])
        names = sorted({name.strip() for name in row["label"].split(",")} - {"", "normal"})
        if match and names:
            kinds[match["within"]] = "+".join(names)
    return kinds
