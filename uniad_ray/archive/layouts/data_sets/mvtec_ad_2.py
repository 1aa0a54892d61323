"""The tree of MVTec AD 2. Its private test sets have no labels.

    [category/]train/good/000_regular.png
    [category/]validation/good/000_regular.png
    [category/]test_public/good/000_regular.png
    [category/]test_public/bad/000_regular.png
    [category/]test_public/ground_truth/bad/000_regular_mask.png
    [category/]test_private/000_regular.png           split `archive`, label unknown
    [category/]test_private_mixed/000_mixed.png       split `archive`, label unknown

Heckler-Kram et al., "The MVTec AD 2 Dataset", 2025.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from uniad_ray.archive.layouts.base import CATEGORY, TELLING_CATEGORY, ImagePlace, Layout, MaskPlace, Place, stem
from uniad_ray.archive.layouts.data_sets.mvtec import mask_stem

_SPLITS = {"train": "train", "validation": "validation", "test_public": "test"}
_IMAGE = re.compile(
    CATEGORY + r"(?P<within>(?P<folder>train|validation|test_public)/(?P<kind>(?i:good|bad))/(?P<rest>.+))"
)
_MASK = re.compile(CATEGORY + r"test_public/ground_truth/(?P<kind>[^/]+)/(?P<rest>.+)")
_UNLABELLED = re.compile(CATEGORY + r"(?P<within>test_private(?:_mixed)?/.+)")


@dataclass(frozen=True)
class MvtecAd2Layout(Layout):
    """The tree of MVTec AD 2, with one or several categories."""

    name: ClassVar[str] = "mvtec_ad_2"
    where: ClassVar[str] = "train/, validation/, test_public/ or test_private/ of a category"
    signature: ClassVar[re.Pattern[str]] = re.compile(TELLING_CATEGORY + r"test_public/(?i:good|bad)/")

    def place(self, path: str) -> Place | None:
        """Takes split and label from the folders."""
        if match := _IMAGE.fullmatch(path):
            kind = match["kind"].lower()
            return ImagePlace(
                category=match["category"],
                path=match["within"],
                split=_SPLITS[match["folder"]],
                label="normal" if kind == "good" else "anomalous",
                defect_kind=None if kind == "good" else kind,
                mask_key=f"{kind}/{stem(match['rest'])}",
            )
        if match := _MASK.fullmatch(path):
            return MaskPlace(match["category"], f"{match['kind'].lower()}/{mask_stem(match['rest'])}")
        if match := _UNLABELLED.fullmatch(path):
            return ImagePlace(category=match["category"], path=match["within"], split="archive", label=None)
        return None


LAYOUT = MvtecAd2Layout()
