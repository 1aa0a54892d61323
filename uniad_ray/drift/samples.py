"""Samples of images with what is measured of each: size, brightness, features and scores."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from uniad_ray.archive.images import decode_image
from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table, read_chunk, read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ImageError

SCHEMA: Final = "image_sample"
_SIDE: Final = 64
"""Images are measured at this size, pixels: an antialiased reduction keeps the mean."""
_LUMA: Final = np.array([0.299, 0.587, 0.114])
_READ_ROWS: Final = 4
"""Rows in the chunks that are read, as a multiple of the sample: reading chunks for one image each would read all."""
_THREADS: Final = 4

Mask = npt.NDArray[np.bool_]
Features = Callable[[Sequence[bytes]], Sequence[tuple[float, ...]]]
"""Measures encoded images with networks; an image that is corrupt has no features."""


@dataclass(frozen=True)
class View:
    """How the bundle of a category sees its images.

    Attributes:
        value_range: As in `decode_image`.
        inside: The part that counts, as in `brightness`; None for all of the image.
        features: Measures images with the networks of the bundle; None if features are not compared.
        feature_images: Images whose features are measured, at most: networks take longer than all else.
    """

    value_range: ValueRange | None = None
    inside: Mask | None = None
    features: Features | None = None
    feature_images: int = 0


_WHOLE: Final = View()


@dataclass(frozen=True)
class SampledImage:
    """One image of a sample; the fields are the columns of schema `image_sample`.

    Attributes:
        row_key: Key of the image row.
        category: Its category.
        width: Pixels; None if only the score is known.
        height: Pixels; None if only the score is known.
        brightness: Mean luma of the part that counts, 0 to 255; None if the image cannot be decoded.
        score: Fused score; None without one.
        experts: Calibrated score of each expert that scored the image.
        features: Means of the feature maps of the bundle; empty if they were not measured.
    """

    row_key: str
    category: str
    width: int | None
    height: int | None
    brightness: float | None
    score: float | None = None
    experts: Mapping[str, float] = field(default_factory=dict)
    features: tuple[float, ...] = ()


def brightness(data: bytes, value_range: ValueRange | None = None, inside: Mask | None = None) -> float:
    """Mean luma (ITU-R BT.601) of an encoded image, or of the part that counts, 0 to 255.

    Args:
        data: The encoded file.
        value_range: As in `decode_image`.
        inside: The part that counts: bool, of the shape that the image is decoded to, with a pixel that is true. None
            measures all of the image.

    Raises:
        ImageError: The image cannot be decoded.
    """
    pixels = decode_image(data, (_SIDE, _SIDE) if inside is None else inside.shape, value_range=value_range)
    counted = pixels.reshape(-1, 3) if inside is None else pixels[inside]
    return float(counted.mean(axis=0) @ _LUMA)


def sample_images(
    archive: Location,
    chunks: Iterable[Chunk],
    most: int,
    *,
    normal_only: bool = False,
    leave_out: Collection[str] = (),
    view: View = _WHOLE,
) -> list[SampledImage]:
    """Measures a random sample of the images of one category; the same images give the same sample.

    Args:
        archive: Root of the archive.
        chunks: Chunks of one category.
        most: Maximum number of images.
        normal_only: Whether to leave out images that are not labelled normal.
        leave_out: Row keys of further images to leave out.
        view: How the images are seen.

    Raises:
        ArchiveError: A shard is corrupt.
        StoreError: A shard cannot be read.
    """
    ordered = sorted(chunks, key=lambda chunk: hashlib.sha256(chunk.name.encode()).digest())
    read: dict[Chunk, pa.Table] = {}
    rows = 0
    for chunk in ordered:
        if rows >= _READ_ROWS * most:
            break
        table = read_chunk(archive, chunk, columns=["row_key", "label"])
        keys = table.filter(pc.equal(table.column("label"), "normal")) if normal_only else table
        read[chunk] = keys.column("row_key")
        rows += keys.num_rows
    # Row keys are digests, so the first of them in order are a random choice.
    every = (key for keys in read.values() for key in keys.to_pylist() if key not in leave_out)
    chosen = sorted(every)[:most]
    looked_at = frozenset(chosen[: view.feature_images])
    found = [image for chunk in read for image in _measured(archive, chunk, set(chosen), looked_at, view)]
    return sorted(found, key=lambda image: image.row_key)


def _measured(
    archive: Location, chunk: Chunk, chosen: set[str], looked_at: frozenset[str], view: View
) -> Iterator[SampledImage]:
    table = read_chunk(archive, chunk, columns=["row_key", "image", "width", "height"])
    table = table.filter(pc.is_in(table.column("row_key"), value_set=pa.array(sorted(chosen), pa.string())))
    rows = table.to_pylist()
    with ThreadPoolExecutor(_THREADS) as pool:
        measured = list(pool.map(lambda row: _brightness_or_none(row["image"], view), rows))
    files = {row["row_key"]: row["image"] for row in rows if row["row_key"] in looked_at}
    features_of = {} if view.features is None else dict(zip(files, view.features(list(files.values())), strict=True))
    for row, found in zip(rows, measured, strict=True):
        key = row["row_key"]
        yield SampledImage(key, chunk.category, row["width"], row["height"], found, features=features_of.get(key, ()))


def _brightness_or_none(data: bytes, view: View) -> float | None:
    try:
        return brightness(data, view.value_range, view.inside)
    except ImageError:
        return None


def with_scores(images: Iterable[SampledImage], rows: pa.Table) -> list[SampledImage]:
    """Adds the scores of a run or of a fit to a sample; an image without a row keeps none.

    Args:
        images: A sample.
        rows: Columns `row_key`, `score` and `experts` of schema `score` or `calibration_score`.
    """
    images = list(images)
    keys = pa.array([image.row_key for image in images], pa.string())
    own = rows.filter(pc.is_in(rows.column("row_key"), value_set=keys))
    found = {row["row_key"]: row for row in own.select(["row_key", "score", "experts"]).to_pylist()}
    return [_with_score(image, found.get(image.row_key)) for image in images]


def _with_score(image: SampledImage, row: Mapping[str, Any] | None) -> SampledImage:
    if row is None:
        return image
    experts = {entry["expert"]: entry["calibrated"] for entry in row["experts"]}
    return replace(image, score=row["score"], experts=experts)


def write_sample(location: Location, images: Sequence[SampledImage]) -> None:
    """Writes a sample as Parquet, schema `image_sample`."""
    schema = dataset_schema(SCHEMA)
    columns: dict[str, Any] = {name: [getattr(image, name) for image in images] for name in schema.arrow.names}
    columns["experts"] = [
        [{"expert": expert, "score": score} for expert, score in image.experts.items()] for image in images
    ]
    location.write_bytes(encode_table(schema, schema.table(columns)))


def read_sample(location: Location) -> list[SampledImage]:
    """Reads a sample.

    Raises:
        ArchiveError: The file is corrupt.
        ObjectNotFoundError: There is none.
    """
    rows = read_table(dataset_schema(SCHEMA), location).to_pylist()
    return [
        SampledImage(
            **{
                **row,
                "experts": {entry["expert"]: entry["score"] for entry in row["experts"]},
                "features": tuple(row["features"]),
            }
        )
        for row in rows
    ]


def values(images: Iterable[SampledImage], measure: str) -> np.ndarray:
    """The known values of a measure, float64, shape (N,).

    Args:
        images: A sample.
        measure: `width`, `height`, `brightness` or `score`.
    """
    return _known(getattr(image, measure) for image in images)


def expert_values(images: Iterable[SampledImage], expert: str) -> np.ndarray:
    """The known scores of an expert, float64, shape (N,)."""
    return _known(image.experts.get(expert) for image in images)


def features(images: Iterable[SampledImage]) -> np.ndarray:
    """The known features, float64, shape (N, D)."""
    known = [image.features for image in images if image.features]
    return np.array(known, dtype=np.float64).reshape(len(known), -1 if known else 0)


def _known(given: Iterable[float | None]) -> np.ndarray:
    known = list(given)
    return np.array([value for value in known if value is not None and math.isfinite(value)], dtype=np.float64)
