"""The work on one chunk of a run: decode it, score it, commit it. No state beyond the loaded bundles."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.object_store import Location
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_chunk
from uniad_ray.errors import BundleError
from uniad_ray.pipelines.compute import choose_device, limit_threads
from uniad_ray.pipelines.run_plan import RunPlan, map_candidates_path, maps_path, scores_path
from uniad_ray.scoring.bundle_store import BundleStore
from uniad_ray.scoring.scorer import Scorer, Verdict, decode_batch

_COPIED_COLUMNS = ("row_key", "image_id", "source_uri", "category", "split", "label", "defect_kind", "anomaly_type")
MAX_LOADED_BUNDLES = 4
"""Bundles an actor keeps; archives are sorted by category, so an actor seldom needs another soon."""


def decode_chunk(row: dict[str, Any], *, archive: str, input_sizes: dict[str, int]) -> dict[str, Any]:
    """Reads one chunk and decodes its images to the input size.

    Args:
        row: `chunk`: fields of a Chunk as JSON.
        archive: Root of the archive.
        input_sizes: Input size by category.

    Returns:
        `chunk` as it came; `images`, uint8 of shape (M, size, size, 3), the M images that are good, or one black image
        where none is; `errors`, JSON of kind and text by position; `rows`, the copied columns as Arrow stream;
        `decode_seconds`.
    """
    started = time.perf_counter()
    chunk = Chunk(**json.loads(row["chunk"]))
    table = read_chunk(Location.parse(archive), chunk, columns=[*_COPIED_COLUMNS, "image"])
    size = input_sizes[chunk.category]
    images, errors = decode_batch(table.column("image").to_pylist(), size, ImageLimits())
    if not len(images):
        images = np.zeros((1, size, size, 3), dtype=np.uint8)
    copied = table.select(_COPIED_COLUMNS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, copied.schema) as writer:
        writer.write_table(copied)
    return {
        "chunk": row["chunk"],
        "images": images,
        "errors": json.dumps({str(position): [error.kind, str(error)] for position, error in errors.items()}),
        "rows": sink.getvalue().to_pybytes(),
        "decode_seconds": time.perf_counter() - started,
    }


class ChunkScorer:
    """An actor's callable: scores decoded chunks and commits them."""

    def __init__(self, plan: dict[str, Any], out: str, *, device: str, threads: int) -> None:
        """Prepares the process; bundles are loaded when their first chunk comes."""
        limit_threads(threads)
        self._plan = RunPlan.model_validate(plan)
        self._run_id = self._plan.run_id
        self._out = Location.parse(out)
        self._device = choose_device(device)
        self._scorers: OrderedDict[str, Scorer] = OrderedDict()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Scores one decoded chunk; the scores are written last, so that their presence means the chunk is whole.

        Args:
            batch: One row of what `decode_chunk` returns, as arrays of length one.

        Returns:
            One row: counts, the digest of the scores, and seconds spent.
        """
        started = time.perf_counter()
        chunk = Chunk(**json.loads(str(batch["chunk"][0])))
        rows = pa.ipc.open_stream(bytes(batch["rows"][0])).read_all()
        errors = {int(position): tuple(error) for position, error in json.loads(str(batch["errors"][0])).items()}
        keys = rows.column("row_key").to_pylist()
        good = [position for position in range(len(keys)) if position not in errors]
        scorer = self._scorer(chunk.category)
        by_position: dict[int, Verdict] = {}
        if good:
            outcomes = scorer.score([keys[position] for position in good], np.asarray(batch["images"][0]))
            for position, outcome in zip(good, outcomes, strict=True):
                if isinstance(outcome, Verdict):
                    by_position[position] = outcome
                else:
                    errors[position] = (outcome.kind, str(outcome))
        scored = time.perf_counter()
        self._write_maps(chunk, keys, by_position)
        table = self._score_table(chunk, rows, by_position, errors, scorer.threshold)
        data = encode_table(dataset_schema("score"), table)
        (self._out / scores_path(chunk.name)).write_bytes(data)
        return {
            "chunk": [chunk.name],
            "category": [chunk.category],
            "rows": [len(keys)],
            "errors": [len(errors)],
            "anomalous": [sum(verdict.is_anomalous for verdict in by_position.values())],
            "sha256": [hashlib.sha256(data).hexdigest()],
            "decode_seconds": [float(batch["decode_seconds"][0])],
            "score_seconds": [scored - started],
            "write_seconds": [time.perf_counter() - scored],
        }

    def _scorer(self, category: str) -> Scorer:
        if category in self._scorers:
            self._scorers.move_to_end(category)
            return self._scorers[category]
        planned = self._plan.bundles[category]
        bundle = BundleStore(self._plan.bundle_root).load(category, planned.version)
        if bundle.manifest.digest != planned.digest:
            raise BundleError(
                f"bundle {category} {planned.version} is not the one of the run's plan; fit or publish it again"
            )
        scorer = bundle.scorer(
            device=self._device,
            false_positive_rate=self._plan.options.false_positive_rate,
            only=self._plan.options.experts,
        )
        bundle.check_reference(scorer)
        self._scorers[category] = scorer
        if len(self._scorers) > MAX_LOADED_BUNDLES:
            self._scorers.popitem(last=False)
        return scorer

    def _score_table(
        self,
        chunk: Chunk,
        rows: pa.Table,
        verdicts: dict[int, Verdict],
        errors: dict[int, tuple[str, str]],
        threshold: float,
    ) -> pa.Table:
        count = rows.num_rows
        bundle = self._plan.bundles[chunk.category]
        found = [verdicts.get(position) for position in range(count)]
        failed = [errors.get(position) for position in range(count)]
        columns = {name: rows.column(name).to_pylist() for name in _COPIED_COLUMNS}
        return dataset_schema("score").table(
            {
                **columns,
                "shard": [chunk.shard] * count,
                "row_group": [chunk.row_group] * count,
                "row": list(range(count)),
                "status": ["error" if error else "ok" for error in failed],
                "error_kind": [error[0] if error else None for error in failed],
                "error": [error[1] if error else None for error in failed],
                "experts": [_expert_scores(verdict) for verdict in found],
                "score": [verdict.score if verdict else None for verdict in found],
                "threshold": [threshold] * count,
                "decision": [verdict.decision if verdict else None for verdict in found],
                "reasons": [list(verdict.reasons) if verdict else [] for verdict in found],
                "run_id": [self._run_id] * count,
                "bundle_version": [bundle.version] * count,
                "bundle_digest": [bundle.digest] * count,
            }
        )

    def _write_maps(self, chunk: Chunk, keys: list[str], verdicts: dict[int, Verdict]) -> None:
        options = self._plan.options
        kept = [
            (keys[position], verdict.score, verdict.anomaly_map)
            for position, verdict in verdicts.items()
            if verdict.anomaly_map is not None
        ]
        if options.maps == "none" or not kept:
            return
        path = maps_path(chunk.name)
        if options.maps == "top":
            kept = sorted(kept, key=lambda entry: (-entry[1], entry[0]))[: options.top_maps]
            path = map_candidates_path(chunk.name)
        schema = dataset_schema("anomaly_map")
        table = schema.table(
            {
                "row_key": [key for key, _, _ in kept],
                "category": [chunk.category] * len(kept),
                "score": [score for _, score, _ in kept],
                "height": [anomaly_map.shape[0] for _, _, anomaly_map in kept],
                "width": [anomaly_map.shape[1] for _, _, anomaly_map in kept],
                "map": [encode_map(anomaly_map) for _, _, anomaly_map in kept],
            }
        )
        (self._out / path).write_bytes(encode_table(schema, table))


def encode_map(anomaly_map: np.ndarray) -> bytes:
    """A map as little-endian float16, row by row; values beyond float16 are clipped to its range."""
    limit = float(np.finfo(np.float16).max)
    return bytes(np.clip(anomaly_map, -limit, limit).astype("<f2").tobytes())


def decode_map(data: bytes, height: int, width: int) -> np.ndarray:
    """The inverse of `encode_map`: float16, shape (height, width)."""
    return np.frombuffer(data, dtype="<f2").reshape(height, width)


def chunk_item(chunk: Chunk) -> dict[str, str]:
    """A chunk as a row of the data set that drives a run."""
    return {"chunk": json.dumps(asdict(chunk))}


def _expert_scores(verdict: Verdict | None) -> list[dict[str, Any]]:
    if verdict is None:
        return []
    return [{"expert": name, "raw": raw, "calibrated": verdict.calibrated[name]} for name, raw in verdict.raw.items()]
