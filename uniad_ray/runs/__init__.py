"""Stored scoring runs: plan, scores, maps, timings and reviews."""

from __future__ import annotations

from uniad_ray.runs.maps import StoredMap, read_maps, write_maps
from uniad_ray.runs.parts import Part, read_parts
from uniad_ray.runs.plan import RunManifest, RunPlan, ScoreOptions, read_plan, read_run
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.reviews import Mark, read_marks, write_marks
from uniad_ray.runs.scored_images import ScoredImages
from uniad_ray.runs.timings import StageSeconds, Timing, read_timings, write_timing

__all__ = [
    "Mark",
    "Part",
    "RunManifest",
    "RunPlan",
    "RunReader",
    "ScoreOptions",
    "ScoredImages",
    "StageSeconds",
    "StoredMap",
    "Timing",
    "read_maps",
    "read_marks",
    "read_parts",
    "read_plan",
    "read_run",
    "read_timings",
    "write_maps",
    "write_marks",
    "write_timing",
]
