"""Train pipeline: trains students on Ray Train."""

from __future__ import annotations

from uniad_ray.pipelines.train.job import train_students

__all__ = ["train_students"]
