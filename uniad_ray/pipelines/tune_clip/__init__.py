"""CLIP tuning pipeline: tunes the CLIP that names objects on Ray Train."""

from __future__ import annotations

from uniad_ray.pipelines.tune_clip.job import TuneReport, tune_clip

__all__ = ["TuneReport", "tune_clip"]
