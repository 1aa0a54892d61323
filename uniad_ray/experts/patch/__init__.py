"""The patch memory (TMUAD, PatchCore)."""

from __future__ import annotations

from uniad_ray.experts.patch.memory import PatchMemory, PatchMemoryConfig

__all__ = ["PatchMemory", "PatchMemoryConfig"]
