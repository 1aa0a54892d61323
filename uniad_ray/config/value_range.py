"""The range of values of images with more than 8 bits, as stored in a configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

_Value = Annotated[int, Field(ge=0, le=65535)]


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] >= value[1]:
        raise ValueError(f"the first value, {value[0]}, must be below the second, {value[1]}")
    return value


ValueRange = Annotated[tuple[_Value, _Value], AfterValidator(_ordered)]
"""Values of images with 16 bits a channel that become 0 and 255."""

ValueRangeOption = Annotated[
    ValueRange | None,
    Field(
        description="Values that become black and white, for images with 16 bits a channel; such as [0, 4095] for a "
        "camera with 12 bits. null finds the range in the category's normal images. A bundle stores the result. Images "
        "with 8 bits do not depend on it."
    ),
]
"""The range of a configuration."""
