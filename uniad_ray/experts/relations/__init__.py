"""The relations expert: counts, places and pairings of parts."""

from __future__ import annotations

from uniad_ray.experts.relations.relations import Relations, RelationsConfig

__all__ = ["Relations", "RelationsConfig"]
