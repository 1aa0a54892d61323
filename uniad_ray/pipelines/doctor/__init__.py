"""Checks whether this machine, a cluster and the stores can do the work, and says what to do about what fails."""

from __future__ import annotations

from uniad_ray.pipelines.doctor.job import DoctorReport, doctor

__all__ = ["DoctorReport", "doctor"]
