"""Ingest pipeline: reads source images into Parquet shards with Ray Data."""

from __future__ import annotations

from uniad_ray.pipelines.ingest.job import IngestReport, ingest

__all__ = ["IngestReport", "ingest"]
