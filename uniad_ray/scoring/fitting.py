"""Fits one category: experts on normal images, calibration on normal images they have not seen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_safetensors

from uniad_ray.config.model import CalibrationConfig, FitConfig
from uniad_ray.errors import FitError
from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.scoring.bundle import CalibrationRecord, ReferenceScores, encode_state
from uniad_ray.scoring.calibration import (
    FloatArray,
    Fold,
    choose_threshold,
    cross_folds,
    fit_calibration,
    holdout_fold,
)
from uniad_ray.scoring.calibration_scores import FILE_NAME as CALIBRATION_SCORES
from uniad_ray.scoring.calibration_scores import encode_calibration_scores
from uniad_ray.scoring.components import build_experts, build_pipeline
from uniad_ray.scoring.fusion import fuse
from uniad_ray.scoring.perceptions import NormalImage, NormalImages, PerceptionSource

REFERENCE_IMAGES = 2
"""Images stored in a bundle with their scores, so that whoever loads it can check that it scores as it did here."""


@dataclass(frozen=True)
class FittedCategory:
    """The parts of a bundle, ready to be written."""

    config: FitConfig
    calibration: CalibrationRecord
    perceivers: Mapping[str, Any]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class _Split:
    method: str
    folds: Sequence[Fold]
    final: Sequence[int]


@dataclass(frozen=True)
class _HeldOut:
    """Held-out raw scores of N images by expert, in the order of the keys."""

    row_keys: Sequence[str]
    raw: Mapping[str, FloatArray]


def fit_category(
    images: NormalImages,
    config: FitConfig,
    *,
    device: str = "cpu",
    where: str = "the configuration",
    on_perceived: Callable[[int], None] | None = None,
) -> FittedCategory:
    """Fits experts and calibration on the normal images of one category.

    With `min_images` or more, a share is held out by hash and the experts are fitted on the rest. With fewer, every
    part is held out once (cross-fitting) and the experts are then fitted on all. A source's own validation split is
    used instead of either where it is large enough.

    Args:
        images: Normal images.
        config: The fit configuration.
        device: Torch device.
        where: File the configuration came from, for messages.
        on_perceived: Called with the number of images of each batch that passed the networks.

    Raises:
        FitError: Too few distinct normal images, or an expert cannot learn from them.
        ConfigError: A component's options are wrong.
        WeightsError: A network's weights cannot be found.
    """
    experts = build_experts(config, where=where)
    pipeline = build_pipeline(config, experts, device=device, where=where)
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    split = _split(images.rows, config.calibration)
    passes = len(experts) * (1 if len(split.folds) == 1 else 2)
    with tempfile.TemporaryDirectory(prefix="uniad-ray-fit-") as folder:
        source = PerceptionSource(
            images,
            pipeline,
            wanted,
            batch_size=config.batch_size,
            spill=Path(folder) if passes > 1 else None,
            on_perceived=on_perceived,
        )
        held_out = _cross_fit(split, experts, source, config, where)
        if len(split.folds) > 1:
            experts = build_experts(config, where=where)
            _fit_all(experts, source, split.final)
        calibrations = {name: fit_calibration(name, raw) for name, raw in held_out.raw.items()}
        files = _state_files(experts)
        files.update(_reference_files(experts, source, images.rows, split.final))
    evidence = {name: Evidence(scores=raw, maps=None, reasons=()) for name, raw in held_out.raw.items()}
    fused = fuse(evidence, calibrations, config.fusion.weights)
    threshold = choose_threshold(fused.scores, config.calibration.false_positive_rate)
    record = CalibrationRecord(
        method=split.method,
        fit_images=len(split.final),
        held_out_images=len(held_out.row_keys),
        experts=calibrations,
        threshold=threshold,
    )
    image_ids = {row.row_key: row.image_id for row in images.rows}
    files[CALIBRATION_SCORES] = encode_calibration_scores(
        held_out.row_keys, [image_ids[key] for key in held_out.row_keys], held_out.raw, fused.calibrated, fused.scores
    )
    return FittedCategory(config, record, pipeline.lineage(pipeline.provides), files)


def _split(rows: Sequence[NormalImage], config: CalibrationConfig) -> _Split:
    image_ids = [row.image_id for row in rows]
    validation = [index for index, row in enumerate(rows) if row.split == "validation"]
    rest = [index for index, row in enumerate(rows) if row.split != "validation"]
    if config.use_validation_split and rest and len(validation) >= config.min_validation:
        return _Split("validation_split", [Fold(tuple(rest), tuple(validation))], rest)
    everything = range(len(rows))
    if len(set(image_ids)) >= config.min_images:
        fold = holdout_fold(image_ids, config.holdout)
        if len(fold.fit) >= 2 and len(fold.calibrate) >= 2:
            return _Split("holdout", [fold], fold.fit)
    return _Split("cross_fit", cross_folds(image_ids, config.folds), everything)


def _cross_fit(
    split: _Split, experts: Mapping[str, Expert], source: PerceptionSource, config: FitConfig, where: str
) -> _HeldOut:
    """Fits and scores every fold; with one fold the given experts are left fitted."""
    row_keys: list[str] = []
    raw: dict[str, list[FloatArray]] = {name: [] for name in experts}
    for fold in split.folds:
        fold_experts = experts if len(split.folds) == 1 else build_experts(config, where=where)
        _fit_all(fold_experts, source, fold.fit)
        for perception in source.perceive(fold.calibrate):
            row_keys += perception.row_keys
            for name, expert in fold_experts.items():
                raw[name].append(np.asarray(expert.score(perception).scores, dtype=np.float64))
    return _HeldOut(row_keys, {name: np.concatenate(parts or [np.zeros(0)]) for name, parts in raw.items()})


def _fit_all(experts: Mapping[str, Expert], source: PerceptionSource, indices: Sequence[int]) -> None:
    for expert in experts.values():
        expert.fit(source.stream(indices))


def _state_files(experts: Mapping[str, Expert]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, expert in experts.items():
        files.update(encode_state(name, expert.state()))
    return files


def _reference_files(
    experts: Mapping[str, Expert], source: PerceptionSource, rows: Sequence[NormalImage], fitted: Sequence[int]
) -> dict[str, bytes]:
    """Scores a few images with the final experts; images the experts have not seen tell more, so they come first."""
    seen = set(fitted)
    order = sorted(range(len(rows)), key=lambda index: (index in seen, rows[index].row_key))[:REFERENCE_IMAGES]
    if not order:
        raise FitError("no normal images; ingest some with label normal")
    perceptions = list(source.perceive(order))
    if not perceptions:
        raise FitError("the reference images cannot be decoded; mend the training images and ingest them again")
    images = np.concatenate([perception.images for perception in perceptions])
    raw = {
        name: tuple(float(value) for perception in perceptions for value in expert.score(perception).scores)
        for name, expert in experts.items()
    }
    scores = ReferenceScores(row_keys=tuple(key for perception in perceptions for key in perception.row_keys), raw=raw)
    document = json.dumps(scores.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
    return {"reference.safetensors": save_safetensors({"images": images}), "reference.json": document.encode()}
