"""Hand-written finished runs with known results; no network scores them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support.trees import mask_png, png

from uniad_ray.archive.ingest.records import IngestRecord, finish_ingest, ingest_folder
from uniad_ray.archive.manifest import build_manifest, chunks
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, encode_shard, encode_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.runs.maps import StoredMap, write_maps
from uniad_ray.runs.plan import (
    FORMAT_VERSION,
    CategoryCounts,
    PlannedBundle,
    RunManifest,
    RunPlan,
    ScoreOptions,
    maps_path,
    scores_path,
)

LIMITS = ShardLimits(rows=6, row_group_rows=3)


@dataclass(frozen=True)
class ScoredImage:
    """One image row with its scores in a run.

    Attributes:
        name: File name; it determines the row key together with the category.
        image: Encoded file.
        score: Fused score; None makes an error row.
        anomaly_map: Kept map, or None.
        masks: Encoded masks.
        experts: Calibrated scores by expert; default the fused score alone.
    """

    name: str
    image: bytes
    score: float | None
    label: str | None = "normal"
    defect_kind: str | None = None
    anomaly_type: str | None = None
    split: str = "test"
    category: str = "part"
    size: tuple[int, int] = (48, 48)
    anomaly_map: np.ndarray | None = None
    masks: tuple[bytes, ...] = ()
    experts: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def row_key(self) -> str:
        return hashlib.sha256(f"{self.category}/{self.name}".encode()).hexdigest()[:32]


def write_archive(
    root: str | Path,
    images: Sequence[ScoredImage],
    *,
    defects: dict[str, Any] | None = None,
    shard_rows: int | None = None,
) -> Location:
    """Writes an archive of these images with one shard per category, or several, sorted by category and split."""
    archive = Location.parse(root)
    shards = []
    for category in sorted({image.category for image in images}):
        own = sorted((image for image in images if image.category == category), key=lambda image: image.split)
        size = shard_rows or len(own)
        for number, start in enumerate(range(0, len(own), size)):
            rows = [_image_row(image) for image in own[start : start + size]]
            data, shard = encode_shard(f"images/{category}/{number}.parquet", rows, LIMITS)
            (archive / shard.path).write_bytes(data)
            shards.append(shard)
    record = IngestRecord(ingest_id="x", source="/source", shards=tuple(shards), rejected=(), defects=defects or {})
    finish_ingest(ingest_folder(archive, "x"), record)
    manifest = build_manifest(schema_version=1, shards=shards, rejected=[], defects=defects or {}, ingests=["x"])
    (archive / "manifest.json").write_json(manifest.model_dump(mode="json"))
    return archive


def write_run(
    root: str | Path,
    archive: Location,
    images: Sequence[ScoredImage],
    *,
    threshold: float = 0.5,
    maps: Any = "all",
    bundle: PlannedBundle | None = None,
) -> Location:
    """Writes a finished run on the archive that `write_archive` wrote for the same images."""
    from uniad_ray.archive.manifest import read_manifest
    from uniad_ray.archive.shards import read_chunk

    run = Location.parse(root)
    manifest = read_manifest(archive)
    work = list(chunks(manifest))
    by_key = {image.row_key: image for image in images}
    bundles = {name: bundle or PlannedBundle(version="v1", digest="d" * 64) for name in manifest.categories}
    plan = RunPlan(
        format_version=FORMAT_VERSION,
        code_version="test",
        archive=archive.uri,
        archive_digest=manifest.digest,
        bundle_root=(run / "no-bundles").uri,
        bundles=bundles,
        options=ScoreOptions(maps=maps),
        chunks=len(work),
        images=manifest.images,
    )
    (run / "plan.json").write_json(plan.model_dump(mode="json"))
    records = []
    for chunk in work:
        table = read_chunk(archive, chunk, columns=["row_key", "image_id", "source_uri"])
        members = [by_key[key] for key in table.column("row_key").to_pylist()]
        rows = [_score_row(image, threshold, plan) for image in members]
        for index, row in enumerate(rows):
            row |= {"shard": chunk.shard, "row_group": chunk.row_group, "row": index}
        schema = dataset_schema("score")
        data = encode_table(schema, schema.table({name: [row[name] for row in rows] for name in schema.arrow.names}))
        (run / scores_path(chunk.name)).write_bytes(data)
        kept = [
            StoredMap(image.row_key, image.category, image.score, np.asarray(image.anomaly_map))
            for image in members
            if image.anomaly_map is not None and image.score is not None
        ]
        if kept and maps == "all":
            write_maps(run / maps_path(chunk.name), kept)
        records.append(
            {
                "chunk": chunk.name,
                "category": chunk.category,
                "rows": len(rows),
                "errors": sum(row["status"] == "error" for row in rows),
                "anomalous": sum(row["decision"] == "anomalous" for row in rows),
                "in_review": sum(row["decision"] == "review" for row in rows),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
    schema = dataset_schema("run_chunk")
    listed = encode_table(
        schema, schema.table({name: [record[name] for record in records] for name in schema.arrow.names})
    )
    (run / "chunks.parquet").write_bytes(listed)
    document = RunManifest(
        run_id=plan.run_id,
        plan=plan,
        images=manifest.images,
        errors=sum(int(record["errors"]) for record in records),
        anomalous=sum(int(record["anomalous"]) for record in records),
        categories={
            name: CategoryCounts(
                images=sum(int(record["rows"]) for record in records if record["category"] == name),
                errors=sum(int(record["errors"]) for record in records if record["category"] == name),
                anomalous=sum(int(record["anomalous"]) for record in records if record["category"] == name),
            )
            for name in manifest.categories
        },
        chunks_sha256=hashlib.sha256(listed).hexdigest(),
        weights={},
        random_weights=False,
    )
    (run / "manifest.json").write_json(document.model_dump(mode="json"))
    return run


def write_noise_run(root: Path, images: int = 20, *, shard_rows: int | None = None) -> str:
    """Writes a run with chunks of three images and maps of noise; every fourth image is anomalous, of two kinds."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(images):
        bad = index % 4 == 3
        anomaly_map = rng.normal(size=(48, 48)).astype(np.float16)
        anomaly_map[16:24, 16:24] += 2 * bad
        extra: dict[str, Any] = {}
        if bad:
            kind = "spot" if index % 8 == 3 else "hole"
            extra = {"label": "anomalous", "defect_kind": kind, "anomaly_type": "structural", "masks": (mask_png(),)}
        found.append(ScoredImage(f"{index:03d}", png(index), float(index), anomaly_map=anomaly_map, **extra))
    return write_run(root / "run", write_archive(root / "archive", found, shard_rows=shard_rows), found).uri


def _image_row(image: ScoredImage) -> dict[str, Any]:
    return {
        "row_key": image.row_key,
        "image_id": hashlib.sha256(image.image).hexdigest(),
        "image": image.image,
        "source_uri": f"/source/{image.category}/{image.name}",
        "category": image.category,
        "split": image.split,
        "label": image.label,
        "defect_kind": image.defect_kind,
        "anomaly_type": image.anomaly_type,
        "masks": [
            {"source_uri": f"/source/{image.name}-{index}", "mask": mask} for index, mask in enumerate(image.masks)
        ],
        "format": "PNG",
        "width": image.size[0],
        "height": image.size[1],
        "captured_at": None,
        "metadata": [{"name": name, "value": value} for name, value in image.metadata.items()],
    }


def _score_row(image: ScoredImage, threshold: float, plan: RunPlan) -> dict[str, Any]:
    good = image.score is not None
    experts = image.experts or {"patch": image.score}
    decision = None if image.score is None else "anomalous" if image.score > threshold else "normal"
    return {
        **{name: value for name, value in _image_row(image).items() if name in dataset_schema("score").arrow.names},
        "status": "ok" if good else "error",
        "error_kind": None if good else "truncated",
        "error": None if good else "PNG: ends early",
        "experts": [{"expert": name, "raw": value, "calibrated": value} for name, value in experts.items() if good],
        "left_out": [],
        "score": image.score,
        "threshold": threshold,
        "decision": decision,
        "reasons": list(image.reasons),
        "run_id": plan.run_id,
        "bundle_version": "v1",
        "bundle_digest": "d" * 64,
    }
