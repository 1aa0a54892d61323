"""Decodes the chunks of an archive ahead of the actors, in bounded memory."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from uniad_ray.archive.images import ImageLimits, decode_batch
from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.stores.retries import store_retries
from uniad_ray.config.value_range import ValueRange
from uniad_ray.pipelines.cluster.session import configure_ray_data
from uniad_ray.pipelines.cluster.sizing import DECODE_SHARE, Cluster

COPIED_COLUMNS = (
    "row_key",
    "image_id",
    "source_uri",
    "category",
    "split",
    "label",
    "defect_kind",
    "anomaly_type",
    "metadata",
)
"""Columns of the archive that are copied along with the decoded images."""

DECODED_CHUNKS = 8
"""Decoded chunks in the object store per actor. Without this limit, Ray Data decodes ahead until it has filled a share
of the store. That wastes gigabytes; decoding first competes with scoring for the cores, and later leaves them idle."""
MIN_DECODED_BYTES = 64 << 20


def decoded_chunks(
    archive: str,
    chunks: Sequence[Chunk],
    image_sizes: dict[str, tuple[int, int]],
    actors: int,
    cluster: Cluster,
    value_ranges: Mapping[str, ValueRange | None],
) -> Any:
    """Builds a Ray dataset with one row per chunk, as `decode_chunk` returns it.

    Args:
        archive: Root of the archive.
        chunks: Chunks to decode, at least one.
        image_sizes: Height and width of the images by category, pixels.
        actors: Number of actors that consume the rows, over all stages.
        cluster: Resources of the cluster.
        value_ranges: Range of the values of 16-bit images by category; see `decode_image`.
    """
    import ray

    configure_ray_data()
    decode = functools.partial(decode_chunk, archive=archive, image_sizes=image_sizes, value_ranges=value_ranges)
    dataset = ray.data.from_items([chunk_item(chunk) for chunk in chunks], override_num_blocks=len(chunks))
    dataset = dataset.map(decode, num_cpus=cluster.cpu_share * DECODE_SHARE)
    largest = max(chunk.rows * 3 * math.prod(image_sizes[chunk.category]) for chunk in chunks)
    dataset.context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
        object_store_memory=max(MIN_DECODED_BYTES, DECODED_CHUNKS * actors * largest)
    )
    return dataset


def chunk_item(chunk: Chunk) -> dict[str, str]:
    """Encodes a chunk as a row of the dataset that drives a run."""
    return {"chunk": json.dumps(asdict(chunk))}


def decode_chunk(
    row: dict[str, Any],
    *,
    archive: str,
    image_sizes: dict[str, tuple[int, int]],
    value_ranges: Mapping[str, ValueRange | None],
) -> dict[str, Any]:
    """Reads one chunk and decodes its images to the size of its category.

    Args:
        row: Row with `chunk`, the fields of a Chunk as JSON.
        archive: Root of the archive.
        image_sizes: Height and width of the images by category, pixels.
        value_ranges: Range of the values of 16-bit images by category; see `decode_image`.

    Returns:
        `chunk`, unchanged; `images`, the M decoded images, uint8 of shape (M, height, width, 3), or one black image if
        none could be decoded; `errors`, error kind and message by position, as JSON; `rows`, the copied columns as an
        Arrow stream; `decode_seconds`; `decode_retries`, the requests to the store that were repeated.
    """
    started, retries = time.perf_counter(), store_retries()
    chunk = Chunk(**json.loads(row["chunk"]))
    table = read_chunk(Location.parse(archive), chunk, columns=[*COPIED_COLUMNS, "image"])
    size = image_sizes[chunk.category]
    images, errors = decode_batch(table.column("image").to_pylist(), size, ImageLimits(), value_ranges[chunk.category])
    if not len(images):
        images = np.zeros((1, *size, 3), dtype=np.uint8)
    copied = table.select(COPIED_COLUMNS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, copied.schema) as writer:
        writer.write_table(copied)
    return {
        "chunk": row["chunk"],
        "images": images,
        "errors": json.dumps({str(position): [error.kind, str(error)] for position, error in errors.items()}),
        "rows": sink.getvalue().to_pybytes(),
        "decode_seconds": time.perf_counter() - started,
        "decode_retries": store_retries() - retries,
    }


@dataclass(frozen=True)
class DecodedChunk:
    """Chunk decoded by `decode_chunk`.

    Attributes:
        chunk: The chunk.
        rows: The copied columns.
        images: The images at the positions `good`, uint8, shape (M, height, width, 3); one black image if `good` is
            empty.
        good: Positions of the M decoded images.
        errors: Error kind and message by position, for images that could not be decoded.
    """

    chunk: Chunk
    rows: pa.Table
    images: np.ndarray
    good: list[int]
    errors: dict[int, tuple[str, str]]

    @property
    def row_keys(self) -> list[str]:
        """Returns the row keys of all rows, in order."""
        return list(self.rows.column("row_key").to_pylist())


def read_decoded(batch: Mapping[str, np.ndarray]) -> DecodedChunk:
    """Parses a row of the dataset, given as arrays of length one."""
    rows = pa.ipc.open_stream(bytes(batch["rows"][0])).read_all()
    errors = {int(position): tuple(error) for position, error in json.loads(str(batch["errors"][0])).items()}
    return DecodedChunk(
        chunk=Chunk(**json.loads(str(batch["chunk"][0]))),
        rows=rows,
        images=np.asarray(batch["images"][0]),
        good=[position for position in range(rows.num_rows) if position not in errors],
        errors=errors,
    )
