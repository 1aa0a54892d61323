"""An ingest without Ray: what the archive already holds, the plan of what is left, its shards and its records."""

from __future__ import annotations

from uniad_ray.archive.ingest.building import build_shard
from uniad_ray.archive.ingest.known import KnownFiles
from uniad_ray.archive.ingest.plan import IngestPlan, plan_ingest, read_planned_shard
from uniad_ray.archive.ingest.records import IngestRecord, ShardRecord, SourceRecord, finished_ingests, rebuild_manifest

__all__ = [
    "IngestPlan",
    "IngestRecord",
    "KnownFiles",
    "ShardRecord",
    "SourceRecord",
    "build_shard",
    "finished_ingests",
    "plan_ingest",
    "read_planned_shard",
    "rebuild_manifest",
]
