"""Worker of one precompute stage: extracts the fields of a decoded chunk and commits them."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from uniad_ray.archive.shards import encode_row_groups
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.pipelines.cluster.decoding import DecodedChunk, read_decoded
from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
from uniad_ray.pipelines.cluster.originals import ChunkOriginals
from uniad_ray.pipelines.score.worker import MAX_LOADED_BUNDLES
from uniad_ray.sidecars.encoding import STAGES, Stage, empty_row, encode_rows
from uniad_ray.sidecars.plan import SidecarFile, SidecarPlan, file_path, stage_schema
from uniad_ray.sidecars.reader import SidecarFields
from uniad_ray.sidecars.stages import CategoryPipeline, load_pipeline


class StageWorker:
    """Ray Data actor that computes the fields of one stage for decoded chunks, and commits them.

    Fields that earlier stages have stored for a chunk are read from their files.
    """

    def __init__(
        self,
        stage: Stage,
        plan: dict[str, Any],
        out: str,
        *,
        is_last: bool,
        device: str,
        threads: int,
        lease: Lease | None = None,
    ) -> None:
        """Prepares the process; the extractors of a category are loaded with its first chunk.

        Args:
            stage: The stage.
            plan: A SidecarPlan as JSON.
            out: Root of the sidecar.
            is_last: Whether this is the last stage; later stages need the images.
            device: `cpu`, `cuda` or `auto`.
            threads: CPU threads of this process.
            lease: Lease of the sidecar, checked before every commit.
        """
        limit_threads(threads)
        self._stage = stage
        self._plan = SidecarPlan.model_validate(plan)
        self._out = Location.parse(out)
        self._is_last = is_last
        self._lease = lease
        self._device = choose_device(device)
        self._pipelines: OrderedDict[str, CategoryPipeline] = OrderedDict()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Precomputes one decoded chunk, unless its file exists.

        Args:
            batch: One row from `decode_chunk` or the previous stage, as arrays of length one.

        Returns:
            The row with `files`, the files written by all stages so far, as JSON. The last stage drops the images.
        """
        decoded = read_decoded(batch)
        files = json.loads(str(batch["files"][0])) if "files" in batch else []
        location = self._out / file_path(self._stage, decoded.chunk.name)
        if self._stage in self._plan.categories[decoded.chunk.category].fields and not location.exists():
            data = encode_row_groups(stage_schema(self._stage), self._tables(decoded))
            if self._lease is not None:
                self._lease.check()
            location.write_bytes(data)
            file = SidecarFile(
                stage=self._stage,
                chunk=decoded.chunk.name,
                category=decoded.chunk.category,
                rows=decoded.rows.num_rows,
                errors=len(decoded.errors),
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
            files.append(asdict(file))
        row = {"row_count": [decoded.rows.num_rows]} if self._is_last else dict(batch)
        return {**row, "files": [json.dumps(files)]}

    def _tables(self, decoded: DecodedChunk) -> Iterator[pa.Table]:
        """Yields the rows of a chunk in batches of the configured size."""
        extractor = self._pipeline(decoded.chunk.category)
        fields = self._plan.categories[decoded.chunk.category].fields
        before = {stage: fields[stage] for stage in STAGES[: STAGES.index(self._stage)] if stage in fields}
        keys = decoded.row_keys
        chunks = dict.fromkeys(keys, decoded.chunk.name)
        stored = SidecarFields(self._out, before, extractor.digests, chunks, files=None)
        images = dict(zip(decoded.good, decoded.images, strict=False))
        originals = ChunkOriginals(self._plan.archive, decoded.chunk, keys)
        schema = stage_schema(self._stage)
        step = extractor.config.batch_size
        for start in range(0, len(keys), step):
            positions = range(start, min(start + step, len(keys)))
            good = [position for position in positions if position in images]
            encoded = {}
            if good:
                pixels = np.stack([images[position] for position in good])
                perception = extractor.pipeline.extract(
                    [keys[position] for position in good], pixels, frozenset(fields[self._stage]), stored, originals
                )
                encoded = dict(zip(good, encode_rows(self._stage, perception), strict=True))
            rows = [
                {"row_key": keys[position], **_status(decoded.errors.get(position))}
                | encoded.get(position, empty_row(self._stage))
                for position in positions
            ]
            yield schema.table({name: [row[name] for row in rows] for name in schema.arrow.names})

    def _pipeline(self, category: str) -> CategoryPipeline:
        planned = self._plan.categories[category]
        # Without bundles, categories with images of one size and range share one pipeline, unless each has its own
        # classes.
        classes = None if self._plan.config is None else self._plan.config.of_category(category).classes
        key = category if planned.bundle else f"{planned.image_size} {planned.value_range} {classes}"
        if key not in self._pipelines:
            self._pipelines[key] = load_pipeline(self._plan, category, self._stage, self._device)
        self._pipelines.move_to_end(key)
        if len(self._pipelines) > MAX_LOADED_BUNDLES:
            self._pipelines.popitem(last=False)
        return self._pipelines[key]


def _status(error: tuple[str, str] | None) -> dict[str, str | None]:
    kind, text = error or (None, None)
    return {"status": "error" if error else "ok", "error_kind": kind, "error": text}
