"""The held-out scores that travel in a bundle, so that a threshold can be chosen again without a fit."""

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
    """Stores the held-out scores of N normal images, sorted by row key.

    Args:
        row_keys: N keys.
        image_ids: N digests.
        raw: Raw scores by expert, each of shape (N,).
        calibrated: Calibrated scores by expert, each of shape (N,).
        scores: Fused scores, shape (N,).
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
    """Scores of N held-out normal images, in the order of the row keys.

    Attributes:
        raw: Raw scores by expert, each of shape (N,).
        fused: Fused scores of the experts that take part, shape (N,).
    """

    raw: dict[str, FloatArray]
    fused: FloatArray


def decode_calibration_scores(data: bytes) -> HeldOutScores:
    """Reads the held-out scores.

    Raises:
        ArchiveError: The table is not of its schema.
    """
    table = pq.read_table(io.BytesIO(data))
    dataset_schema("calibration_score").check(table, source=FILE_NAME)
    raw: dict[str, list[float]] = {}
    for entries in table.column("experts").to_pylist():
        for entry in entries:
            raw.setdefault(entry["expert"], []).append(entry["raw"])
    scores = {name: np.asarray(values, dtype=np.float64) for name, values in raw.items()}
    return HeldOutScores(scores, table.column("score").to_numpy().astype(np.float64))
