"""Experts and maps for categories with large images; other categories are fitted without them."""

from __future__ import annotations

from pydantic import Field

from uniad_ray.config.base import StrictModel


class LargeImagesConfig(StrictModel):
    """Experts for small defects in large images.

    A category has them if its images have enough pixels. Otherwise its expert sets leave them out, and it is fitted as
    if they were not there.
    """

    pixels: int = Field(
        ge=1, description="Minimum height times width of the median normal image, before it is reduced, pixels."
    )
    experts: tuple[str, ...] = Field(min_length=1, description="Experts that only such categories have.")
    map_size: int = Field(
        default=256,
        ge=8,
        le=1024,
        description="Side of the anomaly maps of these experts, and so of the fused maps, map pixels.",
    )
    batch_size: int = Field(
        default=4, ge=1, le=1024, description="Images per forward pass of such categories; their features are large."
    )
