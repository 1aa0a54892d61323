"""What all parts of a caption job share: whom to ask about which archive, and the rows of one chunk in the sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_table
from uniad_ray.archive.stores.lease import Lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.pipelines.caption.engines import EngineConfig
from uniad_ray.pipelines.caption.rows import caption_table, is_worth_a_retry
from uniad_ray.sidecars.captions import CaptionPlan, caption_path


@dataclass(frozen=True)
class CaptionTask:
    """A caption job.

    Attributes:
        plan: The plan of the sidecar.
        engine: The engine.
        archive: Root of the archive.
        sidecar: Root of the sidecar.
        value_ranges: Range of the values of 16-bit images by category; see `decode_image`.
        lease: Lease of the sidecar, checked before every commit.
    """

    plan: CaptionPlan
    engine: EngineConfig
    archive: Location
    sidecar: Location
    value_ranges: Mapping[str, ValueRange | None] = field(default_factory=dict)
    lease: Lease | None = None

    def kept_rows(self, chunk: Chunk) -> dict[str, dict[str, Any]]:
        """Rows of an earlier call that need no retry, by row key."""
        location = self.sidecar / caption_path(chunk.name)
        if not location.exists():
            return {}
        rows = read_table(dataset_schema("caption_sidecar"), location).to_pylist()
        return {row["row_key"]: row for row in rows if not is_worth_a_retry(row)}

    def commit(self, chunk: Chunk, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the rows of a chunk, in the order of the archive.

        Raises:
            LeaseError: Another process has taken over.
        """
        table = caption_table(rows)
        if self.lease is not None:
            self.lease.check()
        (self.sidecar / caption_path(chunk.name)).write_bytes(encode_table(dataset_schema("caption_sidecar"), table))
