"""Scores of normal, synthetic and known anomalous images by experts that have not learned from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from uniad_ray.config.expert_selection import ExpertSelectionConfig
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import FitError
from uniad_ray.perception.base import Originals
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.calibration import FloatArray, Fold
from uniad_ray.scoring.fitting.rounds import FittedRound
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.selection.synthetic_scores import (
    MOST_OTHERS,
    SyntheticScores,
    join_synthetic_scores,
    parts_of_images,
    score_known_defects,
    score_synthetic_anomalies,
)
from uniad_ray.scoring.fitting.synthetic.parts import Parts
from uniad_ray.scoring.fusion import Fusion


class Judged(NamedTuple):
    """Scores by experts that have not learned from the judged images.

    Attributes:
        row_keys: Keys of the N held-out normal images, in the order of the rounds.
        held_out: Raw scores of the held-out images by expert, each of shape (N,).
        fused: Fused scores of the held-out images, shape (N,); None unless the fusion needs the maps of all experts.
        synthetic: Raw scores of synthetic anomalies by kind and expert; empty without expert selection.
        known: Raw scores of known defects by family and expert.
        without_text: Number of held-out images that are not among them because they lack a text.
        rounds: The same by round; empty for a single round.
    """

    row_keys: tuple[str, ...]
    held_out: Mapping[str, FloatArray]
    fused: FloatArray | None
    synthetic: SyntheticScores
    known: SyntheticScores
    without_text: int = 0
    rounds: tuple[Judged, ...] = ()

    @classmethod
    def of_rounds(cls, rounds: Sequence[Judged]) -> Judged:
        """Concatenate the scores of several rounds by the same experts; the first one has those of known defects."""
        first = rounds[0]
        return cls(
            tuple(key for one in rounds for key in one.row_keys),
            {name: np.concatenate([one.held_out[name] for one in rounds]) for name in first.held_out},
            None if first.fused is None else np.concatenate([one.fused for one in rounds if one.fused is not None]),
            join_synthetic_scores([one.synthetic for one in rounds]),
            first.known,
            sum(one.without_text for one in rounds),
            tuple(rounds),
        )

    def of(self, numbers: Sequence[int]) -> Judged:
        """The scores of some rounds, given by their numbers."""
        return Judged.of_rounds([self.rounds[number] for number in numbers])

    def joined(self, other: Judged) -> Judged:
        """Add the scores of other experts for the same images.

        Raises:
            FitError: The images differ, because the archive changed in between.
        """
        if self.row_keys != other.row_keys:
            raise FitError("the normal images changed during the fit; fit again")
        return Judged(
            self.row_keys,
            {**self.held_out, **other.held_out},
            None,
            _joined(self.synthetic, other.synthetic),
            _joined(self.known, other.known),
            self.without_text,
            tuple(one.joined(more) for one, more in zip(self.rounds, other.rounds, strict=True)),
        )


def _joined(first: SyntheticScores, second: SyntheticScores) -> SyntheticScores:
    return {kind: {**scores, **second.get(kind, {})} for kind, scores in first.items()}


def judge_held_out(
    fitted: FittedRound,
    fold: Fold,
    config: FitConfig,
    *,
    texts: frozenset[str],
    to_alter: Collection[int],
    known: Sequence[KnownDefect],
    on_scored: Callable[[int], None],
    on_phase: Callable[[str], None],
) -> Judged:
    """Judge the held-out images of one round, and synthetic anomalies and known defects with expert selection.

    Args:
        fitted: Experts and extractors of the round.
        fold: Fitted and held-out images of the round.
        config: The fit configuration.
        texts: Names of texts that some images may lack; those images are left out.
        to_alter: Indices of the images to make synthetic anomalies from; those that are not held out are ignored.
        known: Known defects; too few are ignored.
        on_scored: Called with the number of images of each batch.
        on_phase: Called with the name of each phase.
    """
    on_phase("calibration")
    fusion, selection = config.chosen_fusion, config.chosen_fusion.selection
    row_keys: list[str] = []
    without_text = 0
    held_out: dict[str, list[FloatArray]] = {name: [] for name in fitted.experts}
    fused: list[FloatArray] = []
    # Calibration compares the experts on the same images, so an image without a text is left out of all.
    wanted = fitted.wanted | texts
    for perception in fitted.source.extract(fold.calibrate, wanted):
        complete = perception.complete(wanted)
        on_scored(len(perception))
        without_text += len(perception) - len(complete)
        if not len(complete):
            continue
        row_keys += complete.row_keys
        evidence = {name: expert.score(complete) for name, expert in fitted.experts.items()}
        for name, item in evidence.items():
            held_out[name].append(np.asarray(item.scores, dtype=np.float64))
        if fusion.rule == "maps":
            fused.append(Fusion.uncalibrated(fusion, tuple(evidence)).fuse(evidence, fitted.pipeline.region).scores)
    synthetic: SyntheticScores = {}
    of_known: SyntheticScores = {}
    if selection is not None:
        on_phase("synthetic anomalies")
        synthetic = _score_altered_images(fitted, fold, to_alter, config, selection, on_scored)
        if len(known) >= selection.fewest_known_defects:
            of_known = score_known_defects(known, fitted.pipeline, fitted.experts, config.batch_size)
    return Judged(
        tuple(row_keys),
        {name: np.concatenate(parts or [np.zeros(0)]) for name, parts in held_out.items()},
        np.concatenate(fused or [np.zeros(0)]) if fusion.rule == "maps" else None,
        synthetic,
        of_known,
        without_text,
    )


def _score_altered_images(
    fitted: FittedRound,
    fold: Fold,
    to_alter: Collection[int],
    config: FitConfig,
    selection: ExpertSelectionConfig,
    on_scored: Callable[[int], None],
) -> SyntheticScores:
    """Score synthetic anomalies made from the held-out images of one round."""
    segments = selection.segments
    originals: Originals = {}

    def parts_of(indices: Sequence[int]) -> list[tuple[str, tuple[Parts, ...]]]:
        nonlocal originals
        perceptions = list(fitted.source.extract(indices, frozenset(segments)))
        originals = perceptions[0].originals if perceptions else originals
        return list(parts_of_images(perceptions, segments))

    others = [parts for _, parts in parts_of(evenly(fold.fit, MOST_OTHERS))]
    images = parts_of([index for index in fold.calibrate if index in to_alter])
    return score_synthetic_anomalies(
        images,
        others,
        fitted.pipeline,
        fitted.experts,
        batch_size=config.batch_size,
        seed=config.seed,
        with_captions=selection.captions,
        originals=originals,
        on_scored=on_scored,
    )


def check_texts(pipeline: PerceptionPipeline, complete: int, without_text: int) -> None:
    """Reject a fit in which most held-out images lack a text.

    Args:
        pipeline: The extractors.
        complete: Number of held-out images with all texts.
        without_text: Number of the others.

    Raises:
        FitError: There are more without a text.
    """
    if without_text > complete:
        names = ", ".join(extractor.name for extractor in pipeline.asking)
        raise FitError(
            f"{without_text} of {complete + without_text} held-out normal images have no text from {names}; caption "
            "the archive again with `uniad-ray caption --retry-errors`, or use an expert set without texts"
        )


def evenly(indices: Sequence[int], most: int) -> list[int]:
    """Select at most `most` of the indices, evenly spaced."""
    positions = np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)
    return [indices[position] for position in positions]
