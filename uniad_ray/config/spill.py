"""How a fit keeps the fields of its normal images on disk."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from uniad_ray.config.base import StrictModel


class SpillConfig(StrictModel):
    """Fields of the normal images that a fit reads more than once, which it keeps on disk."""

    precision: Literal["float32", "float16"] = Field(
        default="float32",
        description="Precision on disk. `float16` takes half of the space; scores of normal images then differ "
        "slightly from those of a run, and values above 65,504 are an error.",
    )
    most_gib: float | None = Field(
        default=None,
        gt=0,
        description="Maximum space of one category, GiB; null takes what is free. A fit says what it needs once the "
        "networks have seen the first images, and ends if that is more.",
    )
