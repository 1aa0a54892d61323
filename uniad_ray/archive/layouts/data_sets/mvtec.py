"""The tree of MVTec AD, also used by MVTec LOCO, MPDD and BTAD.

    [category/]train/good/000.png          normal; `ok` in BTAD
    [category/]validation/good/000.png     in MVTec LOCO
    [category/]test/good/000.png
    [category/]test/scratch/000.png        anomalous; the folder names the defect
    [category/]ground_truth/scratch/000_mask.png    or 000.png, as in BTAD
    [category/]ground_truth/scratch/000/000.png     one file per defect, in MVTec LOCO
    [category/]defects_config.json                  in MVTec LOCO
    [category/]product.json, parts/                 in synthetic products; not read

Bergmann et al., "MVTec AD", CVPR 2019, and "Beyond Dents and Scratches", IJCV 2022; Jezek et al., "Deep learning-based
defect detection of metal parts", ICUMT 2021; Mishra et al., "VT-ADL", ISIE 2021.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from uniad_ray.archive.defects import MAX_DEFECTS_BYTES, decode_defects
from uniad_ray.archive.layouts.base import (
    CATEGORY,
    Companion,
    Companions,
    ImagePlace,
    Layout,
    MaskPlace,
    Place,
    Stray,
    stem,
)
from uniad_ray.archive.layouts.entries import Rejected
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectDeniedError, ObjectNotFoundError, ObjectTooLargeError

_LISTED = 3
"""Maximum number of problems of a file in its reason."""
_NORMAL_FOLDERS = frozenset({"good", "ok"})
_ANOMALY_TYPES = {"logical_anomalies": "logical", "structural_anomalies": "structural"}
_IMAGE = re.compile(CATEGORY + r"(?P<within>(?P<split>train|validation|test)/(?P<kind>[^/]+)/(?P<rest>.+))")
_MASK = re.compile(CATEGORY + r"ground_truth/(?P<kind>[^/]+)/(?P<rest>.+)")
_DEFECTS = re.compile(CATEGORY + r"defects_config\.json")
_PRODUCT = re.compile(CATEGORY + r"(?:product\.json|parts/.+)")
_OTHER_VIEW = re.compile(r"(?P<folder>depth|gt|ground_truth|ir|masks?|pcd|xyz)/.+", re.IGNORECASE)


@dataclass(frozen=True)
class MvtecLayout(Layout):
    """An MVTec-style tree with one or several categories."""

    name: ClassVar[str] = "mvtec"
    where: ClassVar[str] = "train/, validation/ or test/ of a category"
    # `good` is in every layout, `ungood`, `img` and `label` are BMAD's, MVTec AD 2 has its masks in `test_public`, and
    # MVTec 3D-AD has folders below the kinds.
    signature: ClassVar[re.Pattern[str]] = re.compile(
        r"(?!(?:[^/]+/)?(?:train|validation|test)/[^/]+/(?:rgb|gt|xyz)/)"
        r"(?:(?!test_public/)[^/]+/)?"
        r"(?:ground_truth/|(?:train|validation|test)/(?!(?i:good|ungood|img|label|test_public)/)[^/]+/)"
    )

    def place(self, path: str) -> Place | None:
        """Takes split, label and defect kind from the folders."""
        if match := _IMAGE.fullmatch(path):
            if other := _OTHER_VIEW.fullmatch(match["rest"]):
                return Stray(match["category"], f"in {other['folder']}/ of a defect kind, which holds no images")
            kind = match["kind"]
            normal = kind.lower() in _NORMAL_FOLDERS
            return ImagePlace(
                category=match["category"],
                path=match["within"],
                split=match["split"],
                label="normal" if normal else "anomalous",
                defect_kind=None if normal else kind,
                anomaly_type=_ANOMALY_TYPES.get(kind),
                mask_key=f"{kind}/{stem(match['rest'])}",
            )
        if match := _MASK.fullmatch(path):
            return MaskPlace(match["category"], f"{match['kind']}/{mask_stem(match['rest'])}")
        if match := _DEFECTS.fullmatch(path) or _PRODUCT.fullmatch(path):
            return Companion(match["category"])
        return None

    def with_companions(self, companions: Companions, categories: Collection[str]) -> MvtecLayout:  # noqa: ARG002
        """Reads every `defects_config.json`."""
        defects = {}
        rejected = []
        for category, info in companions:
            if _DEFECTS.fullmatch(info.relative):
                defects[category], problems = _read_defects(info.location)
                rejected += [Rejected(info.location.uri, _joined(problems))] if problems else []
        return replace(self, defects=defects, rejected=tuple(rejected))


LAYOUT = MvtecLayout()


def mask_stem(path: str) -> str:
    """The stem of the image that a mask belongs to: the mask's folder, or its own name without `_mask`."""
    return path.rsplit("/", 1)[0] if "/" in path else stem(path).removesuffix("_mask")


def _joined(problems: Sequence[str]) -> str:
    further = len(problems) - _LISTED
    return "; ".join([*problems[:_LISTED], *([f"and {further} more"] if further > 0 else [])])


def _read_defects(location: Location) -> tuple[list[dict[str, Any]], list[str]]:
    """The usable entries, and what is wrong."""
    try:
        return decode_defects(location.read_bytes(max_bytes=MAX_DEFECTS_BYTES))
    except (ObjectDeniedError, ObjectNotFoundError, ObjectTooLargeError) as error:
        return [], [str(error).removeprefix(f"{location}: ")]
