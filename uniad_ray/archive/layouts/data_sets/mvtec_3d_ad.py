"""The tree of MVTec 3D-AD: a folder for each kind of file below each defect kind.

    [category/]train/good/rgb/000.png
    [category/]validation/good/rgb/000.png
    [category/]test/good/rgb/000.png
    [category/]test/crack/rgb/000.png       anomalous; the folder names the defect
    [category/]test/crack/gt/000.png        its mask; the masks of normal images are empty and dropped
    [category/]test/crack/xyz/000.tiff      3D points, and any other folder beside rgb; listed, not taken

Bergmann et al., "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization", VISAPP 2022.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from uniad_ray.archive.layouts.base import CATEGORY, TELLING_CATEGORY, ImagePlace, Layout, MaskPlace, Place, Stray, stem

_FILE = re.compile(
    CATEGORY + r"(?P<within>(?P<split>train|validation|test)/(?P<kind>[^/]+)/(?P<content>[^/]+)/(?P<rest>.+))"
)


@dataclass(frozen=True)
class Mvtec3dAdLayout(Layout):
    """The tree of MVTec 3D-AD, with one or several categories."""

    name: ClassVar[str] = "mvtec_3d_ad"
    where: ClassVar[str] = "train/, validation/ or test/ of a category, and there rgb/ or gt/ of a kind"
    signature: ClassVar[re.Pattern[str]] = re.compile(
        TELLING_CATEGORY + r"(?:train|validation|test)/[^/]+/(?:rgb|gt|xyz)/",
    )

    def place(self, path: str) -> Place | None:
        """Takes split, label and defect kind from the folders."""
        match = _FILE.fullmatch(path)
        if match is None:
            return None
        kind = match["kind"]
        mask_key = f"{match['split']}/{kind}/{stem(match['rest'])}"
        if match["content"] == "gt":
            return MaskPlace(match["category"], mask_key)
        if match["content"] != "rgb":
            return Stray(match["category"], f"in {match['content']}/; only rgb/ and gt/ are read")
        return ImagePlace(
            category=match["category"],
            path=match["within"],
            split=match["split"],
            label="normal" if kind == "good" else "anomalous",
            defect_kind=None if kind == "good" else kind,
            mask_key=mask_key,
        )


LAYOUT = Mvtec3dAdLayout()
