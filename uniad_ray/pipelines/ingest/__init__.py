"""Ingest on Ray Data: source images to Parquet shards."""

from __future__ import annotations

from uniad_ray.pipelines.ingest.job import IngestReport, ingest

__all__ = ["IngestReport", "ingest"]
