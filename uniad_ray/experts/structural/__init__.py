"""The structural experts: a discriminator of patch features, and the discrepancy of teacher and student (UniAD)."""

from __future__ import annotations

from uniad_ray.experts.structural.discrepancy import Discrepancy, DiscrepancyConfig
from uniad_ray.experts.structural.discriminator import StructuralDiscriminator, StructuralDiscriminatorConfig

__all__ = ["Discrepancy", "DiscrepancyConfig", "StructuralDiscriminator", "StructuralDiscriminatorConfig"]
