"""The kinds of defects of a category, from its `defects_config.json`: their names, grey values and saturation areas.

The format is MVTec LOCO's (Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly
Detection and Localization", IJCV 2022). Areas follow the official evaluation code: a relative threshold saturates at
`int(threshold * area)` pixels, an absolute one at `min(threshold, area)`, in pixels of the original mask. There is one
difference: if the area is 0 pixels, the official code divides by zero; here the area is 1.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from uniad_ray.archive.stores.location import is_utf8
from uniad_ray.config.base import StrictModel

MAX_DEFECTS_BYTES = 1 << 20
"""Maximum size of a `defects_config.json`."""


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

    @field_validator("defect_name")
    @classmethod
    def _is_text(cls, name: str) -> str:
        if not is_utf8(name):
            raise ValueError("not Unicode text")
        return name

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


def read_defect_kinds(content: Any) -> tuple[dict[int, DefectKind], list[str]]:
    """Reads the content of a `defects_config.json`; a wrong entry affects no other.

    Args:
        content: The decoded JSON: a list of objects with the fields of `DefectKind`; other fields are ignored.

    Returns:
        The kinds by pixel value; and what is wrong, one line for each entry that is left out.
    """
    if not isinstance(content, list | tuple):
        return {}, [f"expected a list of entries, not {type(content).__name__}; fix it"]
    kinds: dict[int, DefectKind] = {}
    problems = []
    for number, entry in enumerate(content, start=1):
        try:
            kind = _read_entry(entry, kinds)
        except ValueError as error:
            problems.append(f"entry {number}: {error}")
        else:
            kinds[kind.pixel_value] = kind
    return kinds, problems


def decode_defects(data: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """Reads the bytes of a `defects_config.json`, as `read_defect_kinds`.

    Returns:
        The usable entries, without other fields; and what is wrong, one line for each problem.
    """
    try:
        content = json.loads(data, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        return [], [f"not valid JSON ({reason}); fix or remove it"]
    kinds, problems = read_defect_kinds(content)
    return [kind.model_dump() for kind in kinds.values()], problems


def defect_kinds_by_value(defects: Any) -> dict[int, str]:
    """Maps a mask's grey value to the defect's name, from the usable entries of a `defects_config.json`."""
    return {entry["pixel_value"]: entry["defect_name"] for entry in defects or []}


def _read_entry(entry: Any, kinds: dict[int, DefectKind]) -> DefectKind:
    """The kind of an entry; ValueError, with one line for the user, if it is wrong or its value is taken."""
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object, not {_short(entry)}; fix it")  # noqa: TRY004 - one error for all
    try:
        kind = DefectKind.model_validate({name: entry[name] for name in DefectKind.model_fields if name in entry})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1])
        raise ValueError(f"{field + ': ' if field else ''}{first['msg']}; fix it") from error
    if kind.pixel_value in kinds:
        raise ValueError(
            f"pixel_value {kind.pixel_value} is already used by {kinds[kind.pixel_value].defect_name!r}; give each "
            "kind of defect its own value"
        )
    return kind


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _no_number(_name: str) -> None:
    """NaN and the infinities, which are no JSON, are read as null."""


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
