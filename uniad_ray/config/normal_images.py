"""Which normal images a fit uses."""

from __future__ import annotations

import math

from pydantic import Field

from uniad_ray.config.base import StrictModel


class NormalImagesConfig(StrictModel):
    """Selects the normal images to fit on, and adds altered copies if there are too few."""

    most: int | None = Field(
        default=None, ge=1, description="Maximum number of distinct images to fit on, chosen by hash; null uses all."
    )
    draw: int = Field(default=0, ge=0, description="Seed of the random subset chosen by `most`.")
    fewest: int = Field(
        default=4,
        ge=2,
        le=1000,
        description="Minimum number of distinct images to fit on. If a fit with one image held out would have fewer, "
        "altered copies are added. A single image is calibrated on its own copies; its threshold is a rough guess.",
    )

    exclude: tuple[str, ...] = Field(
        default=(),
        description="Images to leave out of this fit: source URI, its end such as `good/007.png`, or sha256. "
        "`uniad-ray archive exclude` leaves an image out of every fit.",
    )

    def copies_of_each(self, images: int) -> int:
        """Number of altered copies of each image. A single image gets twice as many: one half is held out."""
        if images == 1:
            return 2 * self.fewest - 1
        return max(0, math.ceil(self.fewest / (images - 1)) - 1)
