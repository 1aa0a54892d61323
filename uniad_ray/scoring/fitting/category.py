"""Fit one category: experts on normal images, and calibration on held-out normal images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from uniad_ray.config.model import FitConfig
from uniad_ray.errors import FitError
from uniad_ray.perception.base import Perception, State, StoredFields, TrainedExtractor
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.bundle import CalibrationRecord
from uniad_ray.scoring.bundles.gallery import GallerySample
from uniad_ray.scoring.calibration import calibrate_held_out, choose_threshold
from uniad_ray.scoring.calibration_scores import FILE_NAME as CALIBRATION_SCORES
from uniad_ray.scoring.calibration_scores import encode_calibration_scores
from uniad_ray.scoring.factory import build_experts, build_pipeline
from uniad_ray.scoring.fitting.judged import Judged, check_texts, evenly, judge_held_out
from uniad_ray.scoring.fitting.perceptions import (
    ExtractElsewhere,
    ImagePerceptions,
    NormalImages,
    PerceptionSource,
)
from uniad_ray.scoring.fitting.reference_files import reference_files
from uniad_ray.scoring.fitting.rounds import (
    FittedRound,
    RoundFitter,
    SharedWork,
    Train,
    asked_fields,
    experts_before_training,
    experts_with_students,
    fixed_fields,
    needed_fields,
    text_fields,
)
from uniad_ray.scoring.fitting.selection.expert_selection import choose_experts
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.spill import SpillOptions
from uniad_ray.scoring.fitting.twins import split_pictures
from uniad_ray.scoring.fitting.unusual_images import UnusualImages
from uniad_ray.scoring.fusion import Fusion
from uniad_ray.scoring.selection import ExpertSelection, Untrained, with_selected_weights
from uniad_ray.training.distillation import train_student

FindStored = Callable[[PerceptionPipeline], StoredFields]
"""Find the stored fields that match an unfitted pipeline."""
JudgeElsewhere = Callable[[Sequence[str], Sequence[int], SharedWork, float], Sequence[Judged] | None]
"""Judge rounds, given by their numbers, with the named experts in other processes.

Called with the seconds that a round takes here; returns None if these rounds are to be judged here.
"""


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


class CategoryFit:
    """The steps of a fit, which share the perceptions of the normal images; a context manager.

    Every round of `split_pictures` starts a new fit, so no expert has learned from the held-out images that it
    judges. The stored experts may then be fitted on all images. With expert selection, the experts that need no student
    are judged first, because a training takes minutes and often cannot add anything.
    """

    def __init__(
        self,
        images: NormalImages,
        config: FitConfig,
        *,
        device: str = "cpu",
        train: Train | None = None,
        on_progress: Callable[[int], None] | None = None,
        on_phase: Callable[[str], None] | None = None,
        find_stored: FindStored | None = None,
        known: Sequence[KnownDefect] = (),
        elsewhere: JudgeElsewhere | None = None,
        extract_elsewhere: ExtractElsewhere | None = None,
        shared: SharedWork | None = None,
    ) -> None:
        """Store the arguments and load the networks.

        Args:
            images: As all others in `fit_category`.
            config: The fit configuration.
            device: Torch device.
            train: Train a student, or return a trained one.
            on_progress: Called with numbers of images.
            on_phase: Called with the name of each phase.
            find_stored: Find stored fields.
            known: Known defects.
            elsewhere: Judges rounds after the first one in other processes.
            extract_elsewhere: Extracts the fields that need no fit in other processes.
            shared: Work of the process that started the fit, if this one only judges rounds for it.
        """
        self._images = images
        self._config = config
        self._device = device
        self._known = known
        self._advance = on_progress or (lambda _: None)
        self._say = on_phase or (lambda _: None)
        self._elsewhere = elsewhere
        self._read_at = 0.0
        self._experts = build_experts(config)
        self._split = split_pictures(images, config.calibration) if shared is None else shared.split
        self._gallery = GallerySample(
            {row.row_key: row.source_uri for row in images.rows if row.copy_of is None},
            {field for expert in self._experts.values() for field in expert.needs},
        )
        pipeline = build_pipeline(config, asked_fields(config, self._experts), device=device)
        self._unusual = UnusualImages(pipeline.region)
        self._pipeline = pipeline
        self._texts = text_fields(pipeline)
        trained = experts_with_students(self._experts, pipeline)
        self._first = experts_before_training(config, tuple(self._experts), trained)
        self._cleanup = ExitStack()
        folder = (
            Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="uniad-ray-fit-")))
            if shared is None
            else shared.folder
        )
        is_read_once = (
            self._split.is_final_a_round
            and len(self._experts) + len(pipeline.dependent) == 1
            and config.chosen_fusion.selection is None
        )
        # Experts learn on the device of the networks, also from fields that were on disk.
        spill = SpillOptions(config.spill, device)
        source = ImagePerceptions(
            images,
            pipeline,
            fixed_fields(config, self._experts, pipeline),
            batch_size=config.batch_size,
            spill=None if is_read_once else folder / "images",
            on_extracted=self._extracted,
            stored=None if find_stored is None else find_stored(pipeline),
            options=spill,
            elsewhere=extract_elsewhere,
            used=self._split.used,
        )
        self._fitter = RoundFitter(
            config,
            device,
            train or _training_here(images, config, device),
            source,
            needed_fields(config, self._experts, pipeline),
            folder,
            spill,
            {} if shared is None else dict(shared.states),
        )
        self._last_round: FittedRound | None = None
        self._decided: tuple[Judged, ExpertSelection] | None = None
        self._untrained: Untrained = None

    def __enter__(self) -> Self:
        """Return the fit itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Delete the perceptions, if no other process needs them."""
        self._cleanup.close()

    def judge_first(self) -> Judged:
        """Judge the held-out images with all experts, or with those that need no student if the others may be omitted.

        Raises:
            FitError: Too few distinct normal images, or an expert cannot learn from them.
        """
        return self._judge(self._first)

    def wants_students(self, judged: Judged) -> bool:
        """Whether a student may add something to the experts that have judged so far."""
        selection = self._config.chosen_fusion.selection
        trained = self._experts.keys() - judged.held_out.keys()
        decision = self._choose(judged) if trained else None
        if selection is None or decision is None:
            return False
        kinds = {"surface": selection.surface, "arrangement": selection.arrangement}
        is_wanted = any(
            decision.lack[label] >= kind.train_from
            for label, kind in kinds.items()
            if trained.intersection((*kind.base, *kind.candidates))
        )
        # Copies show nothing new.
        images = min(sum(self._images.rows[index].copy_of is None for index in own) for own in self._split.trainings)
        if is_wanted and images < selection.fewest_training_images:
            self._untrained = "few_images"
            return False
        return is_wanted

    @property
    def needs_trial(self) -> bool:
        """Whether a trial costs less than the training of all students."""
        return len(self._split.trainings) > 1

    def students_pay(self, judged: Judged) -> bool:
        """Whether a student adds something in the rounds that need only its first training, which it trains.

        Args:
            judged: Scores by the experts that need no student.

        Raises:
            FitError: As `judge_others`.
        """
        rounds = self._split.trial
        trained = [name for name in self._experts if name not in judged.held_out]
        tried = judged.of(rounds).joined(self._judge(trained, rounds))
        decision = self._choose(tried)
        # Fewer images judge than in the end, so the gain need not be certain.
        pays = decision is not None and any(
            found.weight > 0.0 or (found.trial is not None and found.trial.gain >= found.trial.asked)
            for found in (decision.experts[name] for name in trained)
        )
        self._untrained = None if pays else "no_gain"
        return pays

    def judge_others(self, judged: Judged) -> Judged:
        """Judge the held-out images with the experts that have not judged them yet, which trains students.

        Raises:
            FitError: An expert cannot learn from the images, or the images changed in between.
        """
        return judged.joined(self._judge([name for name in self._experts if name not in judged.held_out]))

    def finish(self, judged: Judged) -> FittedCategory:
        """Choose experts and threshold, and fit the stored experts.

        Args:
            judged: Scores of the held-out images by all experts to store.

        Raises:
            FitError: Every image has a single colour, or an expert cannot learn from the images.
        """
        self._say("memory banks of all images")
        split, rows, config = self._split, self._images.rows, self._config
        names = [name for name in self._experts if name in judged.held_out]
        fitted = self._last_round
        if fitted is None or fitted.experts.keys() != set(names) or not split.is_final_a_round:
            fitted = self._fitter.fit(names, split.final, tuple(split.final), split.final_training)
        files = fitted.state_files()
        files.update(reference_files(self._reference(fitted), fitted.pipeline, fitted.experts, split.final))
        lineage = _lineage(fitted.pipeline, config, self._device)
        if self._unusual.all_plain():
            raise FitError("every normal image has a single colour; check the camera and the archive")
        raw = {name: judged.held_out[name] for name in names}
        decision = self._choose(judged)
        if decision is not None:
            decision = decision.model_copy(update={"untrained": self._untrained})
        fusion = Fusion.fit(with_selected_weights(config.chosen_fusion, decision), raw)
        scores = fusion.fuse_held_out(raw) if judged.fused is None else judged.fused
        record = CalibrationRecord(
            method=split.method,
            fit_images=sum(rows[index].copy_of is None for index in split.final),
            held_out_images=len(judged.row_keys),
            images_without_text=judged.without_text,
            experts=fusion.experts,
            terms=fusion.terms,
            threshold=choose_threshold(scores, config.calibration.false_positive_rate),
            selection=decision,
            review=None if (rate := config.calibration.review_rate) is None else choose_threshold(scores, rate),
        )
        image_ids = {row.row_key: row.image_id for row in rows}
        copies = {row.row_key for row in rows if row.copy_of is not None}
        calibrated = {name: calibrate_held_out(values) for name, values in raw.items()}
        files[CALIBRATION_SCORES] = encode_calibration_scores(
            judged.row_keys, [image_ids[key] for key in judged.row_keys], raw, calibrated, scores
        )
        taking_part = [self._experts[name] for name in names if decision is None or decision.weights[name]]
        files.update(self._gallery.files({field for expert in taking_part for field in expert.needs}))
        twins = len(rows) - len({index for fold in split.folds for index in (*fold.fit, *fold.calibrate)})
        return FittedCategory(config, record, lineage, files, self._unusual.find(left_out=copies), twins)

    def _reference(self, fitted: FittedRound) -> PerceptionSource:
        """The source of the reference images, in full precision: a loaded bundle must reproduce their scores."""
        if self._config.spill.precision == "float32":
            return fitted.source
        batch = self._config.batch_size
        return ImagePerceptions(self._images, fitted.pipeline, frozenset(), batch_size=batch, spill=None)

    def _extracted(self, perception: Perception) -> None:
        self._unusual.add(perception)
        self._gallery.add(perception)
        self._advance(len(perception))
        self._read_at = time.monotonic()

    def _judge(self, names: Sequence[str], rounds: Sequence[int] | None = None) -> Judged:
        """Fit the named experts in every round, or in some with the first, and judge the held-out images with them."""
        started = time.monotonic()
        numbers = range(len(self._split.folds)) if rounds is None else rounds
        first, others = self.judge_round(numbers[0], names), numbers[1:]
        # Later rounds find the perceptions on disk.
        each = time.monotonic() - max(started, self._read_at)
        found = None
        if self._elsewhere is not None and others:
            shared = SharedWork(self._fitter.folder, self._fitter.states, self._split)
            found = self._elsewhere(names, others, shared, each)
        if found is None:
            found = [self.judge_round(number, names) for number in others]
        judged = Judged.of_rounds([first, *found])
        check_texts(self._pipeline, len(judged.row_keys), judged.without_text)
        return judged

    def judge_round(self, number: int, names: Sequence[str]) -> Judged:
        """Fit the named experts in one round, and judge its held-out images with them.

        Args:
            number: Number of the round; the first one, 0, also judges known defects.
            names: Names of the experts.

        Raises:
            FitError: An expert cannot learn from the images.
        """
        split, selection = self._split, self._config.chosen_fusion.selection
        where = f", fold {number + 1} of {len(split.folds)}" if len(split.folds) > 1 else ""
        self._say(f"memory banks{where}")
        fitted = self._fitter.fit(names, split.folds[number].fit, split.learning[number], split.training[number])
        self._last_round = fitted
        held_out = [index for fold in split.folds for index in fold.calibrate]
        return judge_held_out(
            fitted,
            split.folds[number],
            self._config,
            texts=self._texts,
            to_alter=evenly(held_out, selection.images) if selection else (),
            known=self._known if number == 0 else (),
            on_scored=self._advance,
            on_phase=lambda phase: self._say(f"{phase}{where}"),
        )

    def _choose(self, judged: Judged) -> ExpertSelection | None:
        fusion = self._config.chosen_fusion
        if fusion.selection is None:
            return None
        # Without students, the decision about them is the final one.
        if self._decided is None or self._decided[0] is not judged:
            found = choose_experts(fusion, fusion.selection, judged.held_out, judged.synthetic, judged.known)
            self._decided = (judged, found)
        return self._decided[1]


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
    with CategoryFit(
        images, config, device=device, train=train, on_progress=on_progress, find_stored=find_stored, known=known
    ) as fit:
        judged = fit.judge_first()
        if fit.wants_students(judged) and (not fit.needs_trial or fit.students_pay(judged)):
            judged = fit.judge_others(judged)
        return fit.finish(judged)


def _lineage(pipeline: PerceptionPipeline, config: FitConfig, device: str) -> dict[str, Any]:
    """Lineage of the extractors, and of the teachers of trained ones."""
    trained = [extractor for extractor in pipeline.extractors if isinstance(extractor, TrainedExtractor)]
    needs = [need for extractor in trained for need in _training_needs(extractor)]
    teachers = build_pipeline(config, needs, device=device)
    return teachers.lineage(teachers.provides) | pipeline.lineage(pipeline.provides)


def _training_here(images: NormalImages, config: FitConfig, device: str) -> Train:
    def train(extractor: TrainedExtractor, indices: Sequence[int]) -> State:
        teachers = build_pipeline(config, _training_needs(extractor), device=device)
        return train_student(extractor, teachers, images, indices, device=device)

    return train


def _training_needs(extractor: TrainedExtractor) -> list[tuple[str, str]]:
    return [(field, f"the training of {extractor.name}") for field in sorted(extractor.training_needs)]
