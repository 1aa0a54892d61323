"""Fit one category: experts on normal images, and calibration on held-out normal images."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_safetensors

from uniad_ray.config.model import ExpertSelectionConfig, FitConfig
from uniad_ray.errors import FitError
from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import (
    LearnedExtractor,
    Perception,
    PerceptionStream,
    State,
    StatefulExtractor,
    StoredFields,
    TrainedExtractor,
)
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.bundle import CalibrationRecord, encode_state
from uniad_ray.scoring.bundles.gallery import GallerySample
from uniad_ray.scoring.bundles.reference_images import ReferenceScores
from uniad_ray.scoring.calibration import FloatArray, Fold, choose_threshold
from uniad_ray.scoring.calibration_scores import FILE_NAME as CALIBRATION_SCORES
from uniad_ray.scoring.calibration_scores import encode_calibration_scores
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.perceptions import (
    ExtendedPerceptions,
    ImagePerceptions,
    NormalImages,
    PerceptionSource,
    stream,
)
from uniad_ray.scoring.fitting.selection.expert_selection import choose_experts
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.selection.synthetic_anomalies import NormalView
from uniad_ray.scoring.fitting.selection.synthetic_scores import (
    MOST_OTHERS,
    SyntheticScores,
    join_synthetic_scores,
    normal_views,
    score_known_defects,
    score_synthetic_anomalies,
)
from uniad_ray.scoring.fitting.twins import split_pictures
from uniad_ray.scoring.fitting.unusual_images import UnusualImages
from uniad_ray.scoring.fusion import Fusion
from uniad_ray.scoring.selection import with_selected_weights
from uniad_ray.training.distillation import train_student

REFERENCE_IMAGES = 2
"""Number of images stored in a bundle with their scores, to verify the scores on loading."""

Train = Callable[[TrainedExtractor, Sequence[int]], State]
"""Train an extractor on the normal images with the given indices."""

FindStored = Callable[[PerceptionPipeline], StoredFields]
"""Find the stored fields that match an unfitted pipeline."""

_StateKey = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Name of an extractor, and the images that its fields depend on: by learning, and by training."""


@dataclass(frozen=True)
class FittedCategory:
    """Parts of a bundle, ready to write.

    Attributes:
        config: The fit configuration.
        calibration: Calibration and threshold.
        extractors: Lineage by extractor.
        files: Files of the bundle by name.
        unusual: Unusual normal images with the reason, by row key; review them before publishing.
        twins: Number of images that show the picture of another one; they are in no round.
    """

    config: FitConfig
    calibration: CalibrationRecord
    extractors: Mapping[str, Any]
    files: Mapping[str, bytes]
    unusual: Mapping[str, str]
    twins: int = 0


@dataclass(frozen=True)
class _Round:
    """Experts and extractors fitted on one set of images."""

    experts: Mapping[str, Expert]
    pipeline: PerceptionPipeline
    source: PerceptionSource

    @property
    def wanted(self) -> frozenset[str]:
        return frozenset(field for expert in self.experts.values() for field in expert.needs)


def fit_category(
    images: NormalImages,
    config: FitConfig,
    *,
    device: str = "cpu",
    train: Train | None = None,
    on_progress: Callable[[int], None] | None = None,
    find_stored: FindStored | None = None,
    known: Sequence[KnownDefect] = (),
) -> FittedCategory:
    """Fit extractors, experts and calibration on the normal images of one category.

    Every round of `split_normal_images` starts a new fit, so no expert has learned from the held-out images that it
    scores. The stored experts may then be fitted on all images.

    Args:
        images: Normal images.
        config: The fit configuration.
        device: Torch device.
        train: Train a student, or return a trained one; default trains in this process.
        on_progress: Called with the number of images of each batch that is extracted, judged, or scored as a synthetic
            anomaly; `images_of_fit` estimates their sum.
        find_stored: Find stored fields that need not be computed.
        known: Known defects for the expert selection, unless there are too few. Nothing is learned from them.

    Raises:
        FitError: Too few distinct normal images, or an expert cannot learn from them.
        ConfigError: The options of a component are invalid.
        WeightsError: Weights of a network are missing.
    """
    experts = build_experts(config)
    pipeline = build_pipeline(config, _asked(config, experts), device=device)
    split = split_pictures(images, config.calibration)
    unusual = UnusualImages()
    gallery = GallerySample(
        {row.row_key: row.source_uri for row in images.rows if row.copy_of is None},
        {field for expert in experts.values() for field in expert.needs},
    )

    advance = on_progress or (lambda _: None)

    def extracted(perception: Perception) -> None:
        unusual.add(perception)
        gallery.add(perception)
        advance(len(perception))

    with tempfile.TemporaryDirectory(prefix="uniad-ray-fit-") as folder:
        selection = config.chosen_fusion.selection
        is_read_once = split.is_final_a_round and len(experts) + len(pipeline.dependent) == 1 and selection is None
        source = ImagePerceptions(
            images,
            pipeline,
            _fixed_fields(config, experts, pipeline),
            batch_size=config.batch_size,
            spill=None if is_read_once else Path(folder) / "images",
            on_extracted=extracted,
            stored=None if find_stored is None else find_stored(pipeline),
        )
        fitter = _Fitter(config, device, train or _training_here(images, config, device), source, Path(folder))
        row_keys: list[str] = []
        held_out: dict[str, list[FloatArray]] = {name: [] for name in experts}
        fused: list[FloatArray] = []
        synthetic: list[SyntheticScores] = []
        known_scores: SyntheticScores = {}
        to_alter = _evenly(
            [index for fold in split.folds for index in fold.calibrate], selection.images if selection else 0
        )
        for index, fold in enumerate(split.folds):
            fitted = fitter.fit(fold.fit, split.learning[index], split.training[index])
            for perception in fitted.source.extract(fold.calibrate, fitted.wanted):
                row_keys += perception.row_keys
                evidence = {name: expert.score(perception) for name, expert in fitted.experts.items()}
                for name, item in evidence.items():
                    held_out[name].append(np.asarray(item.scores, dtype=np.float64))
                if config.chosen_fusion.rule == "maps":
                    fused.append(Fusion.uncalibrated(config.chosen_fusion, tuple(experts)).fuse(evidence).scores)
                advance(len(perception))
            if selection is not None:
                synthetic.append(_score_synthetic_anomalies(fitted, fold, to_alter, selection, config, advance))
                if index == 0 and len(known) >= selection.fewest_known_defects:
                    known_scores = score_known_defects(known, fitted.pipeline, fitted.experts, config.batch_size)
        if not split.is_final_a_round:
            fitted = fitter.fit(split.final, tuple(split.final), split.final_training)
        files = _state_files(fitted)
        files.update(_reference_files(fitted, split.final))
        lineage = _lineage(fitted.pipeline, config, device)
    if unusual.all_plain():
        raise FitError("every normal image has a single colour; check the camera and the archive")
    raw = {name: np.concatenate(parts or [np.zeros(0)]) for name, parts in held_out.items()}
    decision = (
        choose_experts(config.chosen_fusion, selection, raw, join_synthetic_scores(synthetic), known_scores)
        if selection is not None
        else None
    )
    fusion = Fusion.fit(with_selected_weights(config.chosen_fusion, decision), raw)
    scores = np.concatenate(fused) if fused else fusion.fuse_scores(raw)
    record = CalibrationRecord(
        method=split.method,
        fit_images=sum(images.rows[index].copy_of is None for index in split.final),
        held_out_images=len(row_keys),
        experts=fusion.experts,
        terms=fusion.terms,
        threshold=choose_threshold(scores, config.calibration.false_positive_rate),
        selection=decision,
        review=None if (rate := config.calibration.review_rate) is None else choose_threshold(scores, rate),
    )
    image_ids = {row.row_key: row.image_id for row in images.rows}
    copies = {row.row_key for row in images.rows if row.copy_of is not None}
    calibrated = {name: fusion.experts[name].apply(values) for name, values in raw.items()}
    files[CALIBRATION_SCORES] = encode_calibration_scores(
        row_keys, [image_ids[key] for key in row_keys], raw, calibrated, scores
    )
    taking_part = [experts[name] for name in experts if decision is None or decision.weights[name]]
    files.update(gallery.files({field for expert in taking_part for field in expert.needs}))
    twins = len(images.rows) - len({index for fold in split.folds for index in (*fold.fit, *fold.calibrate)})
    return FittedCategory(config, record, lineage, files, unusual.find(left_out=copies), twins)


@dataclass(frozen=True)
class _Fitter:
    """Run a new fit on one set of images; what was learned from the same images before is reused.

    Attributes:
        folder: Folder for the fields of all rounds.
        states: State of each learned and trained extractor by name and images.
    """

    config: FitConfig
    device: str
    train: Train
    source: PerceptionSource
    folder: Path
    states: dict[_StateKey, State] = field(default_factory=dict)

    def fit(self, indices: Sequence[int], learning: tuple[int, ...], training: tuple[int, ...]) -> _Round:
        """Fit experts on some images; extractors learn from `learning`, and students are trained on `training`."""
        experts = build_experts(self.config)
        pipeline = build_pipeline(self.config, _asked(self.config, experts), device=self.device)
        wanted = _needs(self.config, experts, pipeline)
        source = self.source
        learned_fields: set[str] = set()
        trained_fields: set[str] = set()
        for extractor in pipeline.dependent:
            if isinstance(extractor, LearnedExtractor) or extractor.needs & learned_fields:
                learned_fields |= extractor.provides
            if isinstance(extractor, TrainedExtractor) or extractor.needs & trained_fields:
                trained_fields |= extractor.provides
            key = (
                extractor.name,
                learning if extractor.provides & learned_fields else (),
                training if extractor.provides & trained_fields else (),
            )
            if isinstance(extractor, StatefulExtractor):
                self._prepare(extractor, key, stream(source, learning, extractor.needs))
            # The same images give the same fields in every round.
            kept = self.folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
            source = ExtendedPerceptions(source, pipeline, extractor.provides & wanted, kept)
        for expert in experts.values():
            expert.fit(stream(source, indices, expert.needs))
        return _Round(experts, pipeline, source)

    def _prepare(self, extractor: StatefulExtractor, key: _StateKey, normal: PerceptionStream) -> None:
        """Let an extractor learn, or restore what one with the same images has learned."""
        if key in self.states:
            extractor.restore(self.states[key])
        elif isinstance(extractor, TrainedExtractor):
            self.states[key] = self.train(extractor, key[2])
            extractor.restore(self.states[key])
        elif isinstance(extractor, LearnedExtractor):
            extractor.fit(normal)
            self.states[key] = extractor.state()


def _asked(config: FitConfig, experts: Mapping[str, Expert]) -> list[tuple[str, str]]:
    """Pairs of a field and the expert, or the expert selection, that needs it."""
    selection = config.chosen_fusion.selection
    return needs_of(experts) + (
        [(selection.segments, "the expert selection")] if selection is not None and selection.segments else []
    )


def _fixed_fields(config: FitConfig, experts: Mapping[str, Expert], pipeline: PerceptionPipeline) -> frozenset[str]:
    """Needed fields that are independent of the fit."""
    learned = frozenset(field for extractor in pipeline.dependent for field in extractor.provides)
    return _needs(config, experts, pipeline) - learned


def _needs(config: FitConfig, experts: Mapping[str, Expert], pipeline: PerceptionPipeline) -> frozenset[str]:
    """Fields needed by experts, by the expert selection, or by extractors that depend on learned state."""
    asked = frozenset(field for field, _ in _asked(config, experts))
    return asked.union(*(extractor.needs for extractor in pipeline.dependent))


def _score_synthetic_anomalies(
    fitted: _Round,
    fold: Fold,
    to_alter: Collection[int],
    selection: ExpertSelectionConfig,
    config: FitConfig,
    on_scored: Callable[[int], None],
) -> SyntheticScores:
    """Score synthetic anomalies made from the held-out images of one round."""
    fields = frozenset([selection.segments] if selection.segments else [])

    def views(indices: Sequence[int]) -> list[tuple[str, NormalView]]:
        return list(normal_views(fitted.source.extract(indices, fields), selection.segments))

    others = [view for _, view in views(_evenly(fold.fit, MOST_OTHERS))]
    synthetic = views([index for index in fold.calibrate if index in to_alter])
    return score_synthetic_anomalies(
        synthetic,
        others,
        fitted.pipeline,
        fitted.experts,
        batch_size=config.batch_size,
        seed=config.seed,
        on_scored=on_scored,
    )


def _evenly(indices: Sequence[int], most: int) -> list[int]:
    """Select at most `most` of the indices, evenly spaced."""
    positions = np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)
    return [indices[position] for position in positions]


def _lineage(pipeline: PerceptionPipeline, config: FitConfig, device: str) -> dict[str, Any]:
    """Lineage of the extractors, and of the teachers of trained ones."""
    needs = [
        need
        for extractor in pipeline.extractors
        if isinstance(extractor, TrainedExtractor)
        for need in _training_needs(extractor)
    ]
    teachers = build_pipeline(config, needs, device=device)
    return teachers.lineage(teachers.provides) | pipeline.lineage(pipeline.provides)


def _training_here(images: NormalImages, config: FitConfig, device: str) -> Train:
    def train(extractor: TrainedExtractor, indices: Sequence[int]) -> State:
        teachers = build_pipeline(config, _training_needs(extractor), device=device)
        return train_student(extractor, teachers, images, indices, device=device)

    return train


def _training_needs(extractor: TrainedExtractor) -> list[tuple[str, str]]:
    return [(field, f"the training of {extractor.name}") for field in sorted(extractor.training_needs)]


def _state_files(fitted: _Round) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, expert in fitted.experts.items():
        files.update(encode_state("experts", name, expert.state()))
    for name, state in fitted.pipeline.states().items():
        files.update(encode_state("extractors", name, state))
    return files


def _reference_files(fitted: _Round, indices: Sequence[int]) -> dict[str, bytes]:
    """Score a few images with the final experts, held-out images first."""
    rows = fitted.source.rows
    seen = set(indices)
    order = sorted(range(len(rows)), key=lambda index: (index in seen, rows[index].row_key))[:REFERENCE_IMAGES]
    perceptions = list(fitted.source.extract(order, fitted.wanted))
    if not perceptions:
        raise FitError("the reference images cannot be decoded; repair the training images and ingest them again")
    images = np.concatenate([perception.images for perception in perceptions])
    raw = {
        name: tuple(float(value) for perception in perceptions for value in expert.score(perception).scores)
        for name, expert in fitted.experts.items()
    }
    scores = ReferenceScores(row_keys=tuple(key for perception in perceptions for key in perception.row_keys), raw=raw)
    document = json.dumps(scores.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"
    return {"reference.safetensors": save_safetensors({"images": images}), "reference.json": document.encode()}
