"""The defects of an image: their masks, and how much of each must be found.

A defect may be reported in several places: if one of four screws is missing, any of the four places is correct, and it
is enough to find the area of one. MVTec LOCO AD therefore gives each kind of defect a saturation area (Bergmann et al.,
"Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization", IJCV 2022),
which `DefectKind` computes. The official evaluation code rejects a mask without pixels; here it holds no defect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from uniad_ray.archive.defects import DefectKind


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect of one image.

    Attributes:
        mask: Bool, shape (H, W), true where the defect may be reported; at least one pixel.
        saturation_area: Number of its pixels that must be found, from 1 to the mask's area.
    """

    mask: np.ndarray
    saturation_area: int

    def __post_init__(self) -> None:
        """Raises ValueError if mask or area is not as stated."""
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_ or not self.mask.any():
            raise ValueError(f"a defect must be bool (H, W) with a pixel, not {self.mask.dtype} {self.mask.shape}")
        area = np.count_nonzero(self.mask)
        if not 1 <= self.saturation_area <= area:
            raise ValueError(f"the saturation area must be from 1 to the defect's {area}, not {self.saturation_area}")


def find_defects(masks: Iterable[np.ndarray], kinds: Mapping[int, DefectKind]) -> tuple[list[Defect], set[int]]:
    """Finds the defects of one image.

    Each grey value above 0 in a mask file is one defect, in one or several places. The same value in two files means
    two defects. A file without such a value holds no defect.

    Args:
        masks: The decoded mask files of the image, uint8 or uint16, shape (H, W) each.
        kinds: From `read_defect_kinds`.

    Returns:
        The defects, and the grey values missing in `kinds`; a defect with such a value saturates at its whole
        area.
    """
    defects: list[Defect] = []
    unknown: set[int] = set()
    for mask in masks:
        for value in np.unique(mask[mask > 0]).tolist():
            places = mask == value
            area = int(np.count_nonzero(places))
            if value in kinds:
                area = kinds[value].saturation_area(area)
            else:
                unknown.add(value)
            defects.append(Defect(places, area))
    return defects, unknown
