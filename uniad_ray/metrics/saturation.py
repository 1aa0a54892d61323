"""The defects of an image: their masks, and how much of each must be found.

A defect may be reported in several places: if one of four screws is missing, any of the four places is correct, and it
is enough to find the area of one. MVTec LOCO AD therefore gives each kind of defect a saturation area (Bergmann et al.,
"Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization", IJCV 2022). Areas
follow the official evaluation code: a relative threshold saturates at `int(threshold * area)` pixels, an absolute one
at `min(threshold, area)`, in pixels of the original mask. There are two differences. If the area is 0 pixels, the
official code divides by zero; here the area is 1. The official code rejects a mask without pixels; here it holds no
defect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError


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


class DefectKind(StrictModel):
    """One entry of `defects_config.json`.

    Attributes:
        defect_name: Name of the kind.
        pixel_value: Grey value of its masks.
        saturation_threshold: Pixels of the mask, or a fraction of its area in (0, 1], that must be found.
        relative_saturation: Whether the threshold is a fraction.
    """

    defect_name: StrictStr
    pixel_value: StrictInt = Field(ge=1, le=65535)
    saturation_threshold: StrictInt | StrictFloat
    relative_saturation: StrictBool

    @model_validator(mode="after")
    def _threshold_fits(self) -> DefectKind:
        if self.relative_saturation and not 0 < self.saturation_threshold <= 1:
            raise ValueError("a relative saturation_threshold must be above 0 and at most 1")
        if not self.relative_saturation and (self.saturation_threshold < 1 or self.saturation_threshold % 1):
            raise ValueError("an absolute saturation_threshold must be a whole number of pixels, at least 1")
        return self

    def saturation_area(self, area: int) -> int:
        """Number of pixels that must be found in a defect of the given area."""
        if self.relative_saturation:
            return max(1, int(self.saturation_threshold * area))
        return min(int(self.saturation_threshold), area)


def read_defect_kinds(content: Any) -> dict[int, DefectKind]:
    """Reads the content of a `defects_config.json`.

    Args:
        content: The decoded JSON: a list of objects with the fields of `DefectKind`; other fields are ignored.

    Returns:
        The entries by pixel value.

    Raises:
        ArchiveError: It is not such a list, an entry is wrong, or two entries share a pixel value.
    """
    if not isinstance(content, list | tuple):
        raise ArchiveError(f"defects_config.json: expected a list of entries, not {type(content).__name__}; fix it")
    kinds: dict[int, DefectKind] = {}
    for number, entry in enumerate(content, start=1):
        if not isinstance(entry, dict):
            raise ArchiveError(f"defects_config.json, entry {number}: expected an object, not {entry!r}; fix it")
        try:
            kind = DefectKind.model_validate({name: entry[name] for name in DefectKind.model_fields if name in entry})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"][:1])
            raise ArchiveError(
                f"defects_config.json, entry {number}: {field + ': ' if field else ''}{first['msg']}; fix it"
            ) from error
        if kind.pixel_value in kinds:
            raise ArchiveError(
                f"defects_config.json, entry {number}: pixel_value {kind.pixel_value} is already used by "
                f"{kinds[kind.pixel_value].defect_name!r}; give each kind of defect its own value"
            )
        kinds[kind.pixel_value] = kind
    return kinds


def find_defects(masks: Iterable[np.ndarray], kinds: dict[int, DefectKind]) -> tuple[list[Defect], set[int]]:
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
