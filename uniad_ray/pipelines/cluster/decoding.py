"""Decodes chunks of an archive ahead of the actors that need them, in bounded memory."""

from __future__ import annotations

import functools
import json
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
from uniad_ray.pipelines.cluster.session import configure_ray_data
from uniad_ray.pipelines.cluster.sizing import DECODE_SHARE, Cluster

COPIED_COLUMNS = ("row_key", "image_id", "source_uri", "category", "split", "label", "defect_kind", "anomaly_type")
"""Columns of the archive that go with the decoded images."""

DECODED_CHUNKS = 8
"""Chunks in the object store for each actor. Left alone, Ray Data would decode ahead until a share of the store is
full: gigabytes that no actor needs yet, and decoding that takes the cores from scoring at first and leaves them idle
later."""
MIN_DECODED_BYTES = 64 << 20


def decoded_chunks(
    archive: str, chunks: Sequence[Chunk], input_sizes: dict[str, int], actors: int, cluster: Cluster
) -> Any:
    """A Ray data set with a row a chunk, as `decode_chunk` returns it.

    Args:
        archive: Root of the archive.
        chunks: At least one.
        input_sizes: Input size by category.
        actors: Number of actors that will take the rows, in all stages together.
        cluster: What there is to work with.
    """
    import ray

    configure_ray_data()
    decode = functools.partial(decode_chunk, archive=archive, input_sizes=input_sizes)
    dataset = ray.data.from_items([chunk_item(chunk) for chunk in chunks], override_num_blocks=len(chunks))
    dataset = dataset.map(decode, num_cpus=cluster.cpu_share * DECODE_SHARE)
    largest = max(chunk.rows * 3 * input_sizes[chunk.category] ** 2 for chunk in chunks)
    dataset.context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
        object_store_memory=max(MIN_DECODED_BYTES, DECODED_CHUNKS * actors * largest)
    )
    return dataset


def chunk_item(chunk: Chunk) -> dict[str, str]:
    """A chunk as a row of the data set that drives a run."""
    return {"chunk": json.dumps(asdict(chunk))}


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
    table = read_chunk(Location.parse(archive), chunk, columns=[*COPIED_COLUMNS, "image"])
    size = input_sizes[chunk.category]
    images, errors = decode_batch(table.column("image").to_pylist(), size, ImageLimits())
    if not len(images):
        images = np.zeros((1, size, size, 3), dtype=np.uint8)
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
    }


@dataclass(frozen=True)
class DecodedChunk:
    """What `decode_chunk` made of a chunk.

    Attributes:
        chunk: The chunk.
        rows: The copied columns.
        images: uint8, shape (M, size, size, 3): the images at the positions `good`; one black image where none is.
        good: Positions of the M images that could be decoded.
        errors: Kind and text by position of those that could not.
    """

    chunk: Chunk
    rows: pa.Table
    images: np.ndarray
    good: list[int]
    errors: dict[int, tuple[str, str]]

    @property
    def row_keys(self) -> list[str]:
        """Row keys of all rows, in order."""
        return list(self.rows.column("row_key").to_pylist())


def read_decoded(batch: Mapping[str, np.ndarray]) -> DecodedChunk:
    """Takes a row of the data set apart, which comes as arrays of length one."""
    rows = pa.ipc.open_stream(bytes(batch["rows"][0])).read_all()
    errors = {int(position): tuple(error) for position, error in json.loads(str(batch["errors"][0])).items()}
    return DecodedChunk(
        chunk=Chunk(**json.loads(str(batch["chunk"][0]))),
        rows=rows,
        images=np.asarray(batch["images"][0]),
        good=[position for position in range(rows.num_rows) if position not in errors],
        errors=errors,
    )
