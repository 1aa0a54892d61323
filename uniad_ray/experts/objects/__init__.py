"""The object memory (TMUAD)."""

from __future__ import annotations

from uniad_ray.experts.objects.memory import ObjectMemory, ObjectMemoryConfig

__all__ = ["ObjectMemory", "ObjectMemoryConfig"]
