"""Worker of a caption job: loads the model alone, captions chunks of an archive, and commits them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.perception.captions.base import Answer
from uniad_ray.pipelines.caption.engines import EngineConfig, build_engine
from uniad_ray.pipelines.caption.rows import answer_row, ask_with_retry, decoded, undecodable_row
from uniad_ray.pipelines.caption.task import CaptionTask
from uniad_ray.pipelines.cluster.devices import limit_threads
from uniad_ray.sidecars.captions import CaptionPlan


class CaptionWorker:
    """Ray Data actor that captions chunks; its only state is the model."""

    def __init__(
        self,
        plan: dict[str, Any],
        engine: dict[str, Any],
        archive: str,
        out: str,
        *,
        batch: int,
        threads: int,
        value_ranges: Mapping[str, ValueRange | None],
        lease: Lease | None = None,
    ) -> None:
        """Prepares the process; the model is loaded with the first chunk.

        Args:
            plan: A CaptionPlan as JSON.
            engine: An EngineConfig as JSON.
            archive: Root of the archive.
            out: Root of the sidecar.
            batch: Images per call of the model.
            threads: CPU threads of this process.
            value_ranges: Range of the values of 16-bit images by category; see `decode_image`.
            lease: Lease of the sidecar, checked before every commit.
        """
        limit_threads(threads)
        self._plan = CaptionPlan.model_validate(plan)
        self._config = EngineConfig.model_validate(engine)
        self._task = CaptionTask(
            self._plan, self._config, Location.parse(archive), Location.parse(out), value_ranges, lease
        )
        self._engine = build_engine(self._config)
        self._batch = batch

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Captions one chunk; rows of its file that need no retry are kept.

        Args:
            batch: One row with `chunk`, a Chunk as JSON, as an array of length one.

        Returns:
            One row: the name of the chunk, and its number of rows and errors.
        """
        chunk = Chunk(**json.loads(str(batch["chunk"][0])))
        table = read_chunk(self._task.archive, chunk, columns=["row_key", "image"])
        keys = table.column("row_key").to_pylist()
        found = self._task.kept_rows(chunk)
        pending = [position for position, key in enumerate(keys) if key not in found]
        for start in range(0, len(pending), self._batch):
            positions = pending[start : start + self._batch]
            encoded = [table.column("image")[position].as_py() for position in positions]
            found |= self._captioned([keys[position] for position in positions], encoded, chunk.category)
        rows = [found[key] for key in keys]
        self._task.commit(chunk, rows)
        errors = sum(row["status"] == "error" for row in rows)
        return {"chunk": [chunk.name], "rows": [len(rows)], "errors": [errors]}

    def _captioned(self, keys: list[str], encoded: list[bytes], category: str) -> dict[str, dict[str, Any]]:
        images, errors = decoded(encoded, self._config.longest_side, self._task.value_ranges.get(category))
        rows = {
            keys[position]: undecodable_row(keys[position], error, self._plan) for position, error in errors.items()
        }
        if images:
            asked = ask_with_retry(list(images.values()), self._plan, self._ask, self._config.max_tokens)
            for position, (answer, attempts) in zip(images, asked, strict=True):
                rows[keys[position]] = answer_row(keys[position], answer, attempts, self._plan)
        return rows

    def _ask(self, images: Any, max_tokens: int | None) -> list[Answer]:
        return self._engine.answers(images, self._plan.prompt, self._plan.answer_schema or None, max_tokens)
