"""Compaction: joins the small shards of a category into larger ones; it may be interrupted."""

from __future__ import annotations

from uniad_ray.archive.compaction.job import CompactedCategory, CompactionReport, compact

__all__ = ["CompactedCategory", "CompactionReport", "compact"]
