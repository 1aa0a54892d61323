"""Rounds of a fit: experts and extractors fitted on one set of normal images each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniad_ray.config.model import FitConfig
from uniad_ray.experts.base import AlikeExpert, Expert
from uniad_ray.perception.base import (
    LearnedExtractor,
    PerceptionStream,
    State,
    StatefulExtractor,
    TrainedExtractor,
)
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.bundle import encode_state
from uniad_ray.scoring.complete import complete_stream
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.perceptions import ExtendedPerceptions, PerceptionSource, stream
from uniad_ray.scoring.fitting.spill import SpillOptions
from uniad_ray.scoring.fitting.splits import FitSplit

Train = Callable[[TrainedExtractor, Sequence[int]], State]
"""Train an extractor on the normal images with the given indices."""

StateKey = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Name of an extractor, and the images that its fields depend on: by learning, and by training."""


@dataclass(frozen=True)
class SharedWork:
    """What another process on the same node needs to judge rounds of a fit without repeating work.

    Attributes:
        folder: Perceptions of the images.
        states: What extractors have learned.
        split: Use of the images, without twins.
    """

    folder: Path
    states: Mapping[StateKey, State]
    split: FitSplit


@dataclass(frozen=True)
class FittedRound:
    """Experts and extractors fitted on one set of images.

    Attributes:
        experts: Fitted experts by name.
        pipeline: The extractors that they need.
        source: Normal images with the fields of the extractors.
    """

    experts: Mapping[str, Expert]
    pipeline: PerceptionPipeline
    source: PerceptionSource

    @property
    def wanted(self) -> frozenset[str]:
        """Fields that the experts need."""
        return frozenset(field for expert in self.experts.values() for field in expert.needs)

    def state_files(self) -> dict[str, bytes]:
        """Encode what experts and extractors have learned, by name of the file in a bundle."""
        files: dict[str, bytes] = {}
        for name, expert in self.experts.items():
            files.update(encode_state("experts", name, expert.state()))
        for name, state in self.pipeline.states().items():
            files.update(encode_state("extractors", name, state))
        return files


@dataclass(frozen=True)
class RoundFitter:
    """Run a new fit on one set of images; what was learned from the same images before is reused.

    Attributes:
        config: The fit configuration.
        device: Torch device.
        train: Trains the students.
        source: Normal images with the fields that need no fit.
        wanted: Fields to keep of the extractors that depend on the fit.
        folder: Folder for the fields of all rounds.
        spill: Precision and bound of these fields.
        states: State of each learned and trained extractor by name and images.
    """

    config: FitConfig
    device: str
    train: Train
    source: PerceptionSource
    wanted: frozenset[str]
    folder: Path
    spill: SpillOptions = field(default_factory=SpillOptions)
    states: dict[StateKey, State] = field(default_factory=dict)

    def fit(
        self,
        names: Collection[str],
        indices: Sequence[int],
        learning: tuple[int, ...],
        training: tuple[int, ...],
    ) -> FittedRound:
        """Fit the named experts on some images; extractors learn from `learning`, and students from `training`."""
        experts = build_experts(self.config, only=names)
        pipeline = build_pipeline(self.config, asked_fields(self.config, experts), device=self.device)
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
                normal = complete_stream(stream(source, learning, extractor.needs), extractor.needs)
                self._prepare(extractor, key, normal)
            # The same images give the same fields in every round.
            kept = self.folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
            source = ExtendedPerceptions(source, pipeline, extractor.provides & self.wanted, kept, self.spill)
        fitted: list[Expert] = []
        for expert in experts.values():
            normal = complete_stream(stream(source, indices, expert.needs), expert.needs)
            alike = next((one for one in fitted if isinstance(expert, AlikeExpert) and expert.learns_like(one)), None)
            if isinstance(expert, AlikeExpert) and alike is not None:
                expert.fit_like(alike, normal)
            else:
                expert.fit(normal)
            fitted.append(expert)
        return FittedRound(experts, pipeline, source)

    def _prepare(self, extractor: StatefulExtractor, key: StateKey, normal: PerceptionStream) -> None:
        """Let an extractor learn, or restore what one with the same images has learned."""
        if key in self.states:
            extractor.restore(self.states[key])
        elif isinstance(extractor, TrainedExtractor):
            self.states[key] = self.train(extractor, key[2])
            extractor.restore(self.states[key])
        elif isinstance(extractor, LearnedExtractor):
            extractor.fit(normal)
            self.states[key] = extractor.state()


def asked_fields(config: FitConfig, experts: Mapping[str, Expert]) -> list[tuple[str, str]]:
    """Pairs of a field and the expert, or the expert selection, that needs it."""
    selection = config.chosen_fusion.selection
    segments = () if selection is None else selection.segments
    return needs_of(experts) + [(field, "the expert selection") for field in segments]


def fixed_fields(config: FitConfig, experts: Mapping[str, Expert], pipeline: PerceptionPipeline) -> frozenset[str]:
    """Needed fields that are independent of the fit."""
    learned = frozenset(field for extractor in pipeline.dependent for field in extractor.provides)
    return needed_fields(config, experts, pipeline) - learned


def needed_fields(config: FitConfig, experts: Mapping[str, Expert], pipeline: PerceptionPipeline) -> frozenset[str]:
    """All texts, and fields needed by experts, the expert selection, or extractors that depend on learned state."""
    asked = frozenset(field for field, _ in asked_fields(config, experts))
    return asked.union(text_fields(pipeline), *(extractor.needs for extractor in pipeline.dependent))


def text_fields(pipeline: PerceptionPipeline) -> frozenset[str]:
    """Fields that a vision-language model writes, which some images may lack."""
    return frozenset(field for extractor in pipeline.asking for field in extractor.provides)


def experts_with_students(experts: Mapping[str, Expert], pipeline: PerceptionPipeline) -> frozenset[str]:
    """Names of the experts that need fields of a trained extractor, directly or through other fields.

    Args:
        experts: Experts by name.
        pipeline: The extractors behind them, in order of dependence.
    """
    trained: set[str] = set()
    for extractor in pipeline.extractors:
        if isinstance(extractor, TrainedExtractor) or extractor.needs & trained:
            trained |= extractor.provides
    return frozenset(name for name, expert in experts.items() if expert.needs & trained)


def experts_before_training(config: FitConfig, names: Sequence[str], trained: Collection[str]) -> tuple[str, ...]:
    """Names of the experts that judge before it is decided whether to train students: all if that is not decided.

    Args:
        config: The fit configuration.
        names: All experts.
        trained: Those that need a student.
    """
    selection = config.chosen_fusion.selection
    others = tuple(name for name in names if name not in trained)
    if selection is None or not others:
        return tuple(names)
    is_certain = any(
        not kind.train_from and set(trained).intersection((*kind.base, *kind.candidates))
        for kind in (selection.surface, selection.arrangement)
    )
    return tuple(names) if is_certain else others
