"""Sidecars of precomputed fields: plan, stages, encoding, fingerprints and reader."""

from __future__ import annotations

from uniad_ray.sidecars.encoding import STAGES, Stage
from uniad_ray.sidecars.plan import SidecarManifest, SidecarPlan, read_sidecar
from uniad_ray.sidecars.reader import Sidecar, open_sidecar
from uniad_ray.sidecars.stages import CategoryPipeline

__all__ = [
    "CategoryPipeline",
    "STAGES",
    "Sidecar",
    "SidecarManifest",
    "SidecarPlan",
    "Stage",
    "open_sidecar",
    "read_sidecar",
]
