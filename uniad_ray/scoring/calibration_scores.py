"""Held-out scores in a bundle, used to choose another threshold without a new fit."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import encode_table
from uniad_ray.scoring.calibration import FloatArray

FILE_NAME = "calibration_scores.parquet"


def encode_calibration_scores(
    row_keys: Sequence[str],
    image_ids: Sequence[str],
    raw: Mapping[str, FloatArray],
    calibrated: Mapping[str, FloatArray],
    scores: FloatArray,
) -> bytes:
    """Encode the held-out scores of N normal images as Parquet, sorted by row key.

    Args:
        row_keys: Keys of the N images.
        image_ids: sha256 of the N images.
        raw: Raw scores by expert, each of shape (N,).
        calibrated: Scores by expert, each calibrated by those of all other images, each of shape (N,).
        scores: The fused scores of these, shape (N,).
    """
    order = sorted(range(len(row_keys)), key=lambda index: row_keys[index])
    schema = dataset_schema("calibration_score")
    table = schema.table(
        {
            "row_key": [row_keys[index] for index in order],
            "image_id": [image_ids[index] for index in order],
            "experts": [
                [
                    {"expert": name, "raw": float(raw[name][index]), "calibrated": float(calibrated[name][index])}
                    for name in raw
                ]
                for index in order
            ],
            "score": [float(scores[index]) for index in order],
        }
    )
    return encode_table(schema, table)


class HeldOutScores(NamedTuple):
    """Scores of N held-out normal images, ordered by row key.

    Attributes:
        row_keys: Keys of the images.
        raw: Raw scores by expert, each of shape (N,).
        fused: Fused scores of the selected experts, each calibrated by all other images, shape (N,); bundles of older
            versions calibrated them by all images.
    """

    row_keys: tuple[str, ...]
    raw: dict[str, FloatArray]
    fused: FloatArray

    def highest(self, most: int) -> dict[str, float]:
        """Return the fused scores of the `most` highest images by row key, the highest first."""
        order = sorted(range(len(self.row_keys)), key=lambda index: -self.fused[index])[:most]
        return {self.row_keys[index]: float(self.fused[index]) for index in order}


def decode_calibration_scores(data: bytes) -> HeldOutScores:
    """Decode the held-out scores.

    Raises:
        ArchiveError: The table does not match its schema.
    """
    table = pq.read_table(io.BytesIO(data))
    dataset_schema("calibration_score").check(table, source=FILE_NAME)
    raw: dict[str, list[float]] = {}
    for entries in table.column("experts").to_pylist():
        for entry in entries:
            raw.setdefault(entry["expert"], []).append(entry["raw"])
    scores = {name: np.asarray(values, dtype=np.float64) for name, values in raw.items()}
    keys = tuple(table.column("row_key").to_pylist())
    return HeldOutScores(keys, scores, table.column("score").to_numpy().astype(np.float64))
