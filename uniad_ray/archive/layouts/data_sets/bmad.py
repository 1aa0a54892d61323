"""The folders of BMAD, the Benchmarks for Medical Anomaly Detection: brain MRI, liver CT, RESC and others.

    [category/]train/good/0.png
    [category/]valid/good/img/0.png               `val` in RESC
    [category/]valid/Ungood/img/1.png             `ungood` in liver CT and RESC
    [category/]valid/Ungood/label/1.png           masks
    [category/]test/{good,Ungood}/{img,label}/0.png

`img` is absent if there are no masks. It may be the parent of `good` and `Ungood`, as in some copies of liver CT. In
some sets normal images have empty masks; these are dropped.

Bao et al., "BMAD: Benchmarks for Medical Anomaly Detection", CVPR workshops 2024.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from uniad_ray.archive.layouts.base import CATEGORY, TELLING_CATEGORY, ImagePlace, Layout, MaskPlace, Place, stem

_SPLITS = {"train": "train", "valid": "validation", "val": "validation", "test": "test"}
_FILE = re.compile(
    CATEGORY + r"(?P<within>(?P<folder>train|valid|val|test)/"
    r"(?:(?P<outer>img|label)/)?(?P<kind>good|ungood)/(?:(?P<inner>img|label)/)?(?P<rest>.+))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class BmadLayout(Layout):
    """The folders of BMAD, with one or several categories."""

    name: ClassVar[str] = "bmad"
    where: ClassVar[str] = "train/, valid/ or test/ of a category, and there good/ or Ungood/"
    signature: ClassVar[re.Pattern[str]] = re.compile(
        TELLING_CATEGORY
        + r"(?:(?:valid|val)/ungood/|(?:valid|val|test)/(?:ungood/(?:img|label)|(?:img|label)/ungood)/)",
        re.IGNORECASE,
    )

    def place(self, path: str) -> Place | None:
        """Takes split and label from the folders, and masks from the folders named `label`."""
        match = _FILE.fullmatch(path)
        if match is None:
            return None
        split, kind = _SPLITS[match["folder"].lower()], match["kind"].lower()
        mask_key = f"{split}/{kind}/{stem(match['rest'])}"
        if "label" in ((match["outer"] or "").lower(), (match["inner"] or "").lower()):
            return MaskPlace(match["category"], mask_key)
        return ImagePlace(
            category=match["category"],
            path=match["within"],
            split=split,
            label="normal" if kind == "good" else "anomalous",
            defect_kind=None if kind == "good" else kind,
            mask_key=mask_key,
        )


LAYOUT = BmadLayout()
