"""Deletes images from an archive: chosen by name, category, metadata or time; it may be interrupted."""

from __future__ import annotations

from uniad_ray.archive.deletion.choice import DeletionChoice, parse_metadata, parse_time
from uniad_ray.archive.deletion.job import (
    DeletionReport,
    delete_images,
    finish_deletions,
    is_deleted,
    list_deletions,
    resume_deletions,
)
from uniad_ray.archive.deletion.meanwhile import deletions_explained

__all__ = [
    "DeletionChoice",
    "DeletionReport",
    "delete_images",
    "deletions_explained",
    "finish_deletions",
    "is_deleted",
    "list_deletions",
    "parse_metadata",
    "parse_time",
    "resume_deletions",
]
