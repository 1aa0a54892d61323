"""Scores of synthetic anomalies, and of known defects, by experts that have not seen the original images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.selection.synthetic_anomalies import (
    SYNTHETIC_ANOMALIES,
    NormalView,
    make_synthetic_anomaly,
)

MOST_OTHERS: Final = 32
"""Maximum number of other normal images to take pixels from."""

SyntheticScores = Mapping[str, Mapping[str, FloatArray]]
"""Raw scores by kind of synthetic anomaly and by expert, each of shape (anomalies,)."""


def normal_views(perceptions: Iterable[Perception], segments: str | None) -> Iterator[tuple[str, NormalView]]:
    """Yield row key and view of every image.

    Args:
        perceptions: Batches, with the field of segments if there is one.
        segments: Field of segments; None without a segmenter.
    """
    for perception in perceptions:
        found = perception.segments[segments] if segments is not None else [None] * len(perception)
        yield from zip(perception.row_keys, map(NormalView, perception.images, found), strict=True)


def score_synthetic_anomalies(
    views: Sequence[tuple[str, NormalView]],
    others: Sequence[NormalView],
    pipeline: PerceptionPipeline,
    experts: Mapping[str, Expert],
    *,
    batch_size: int,
    seed: int,
    on_scored: Callable[[int], None] | None = None,
) -> SyntheticScores:
    """Make synthetic anomalies of every kind from some images, and score them.

    Args:
        views: Row key and view of each image.
        others: Other normal images, at least one; some kinds take pixels from them.
        pipeline: The extractors.
        experts: Fitted experts by name.
        batch_size: Images per batch.
        seed: Seed of the synthetic anomalies.
        on_scored: Called with the number of images of each batch.

    Returns:
        Raw scores by kind and by expert, each of shape (anomalies,); kinds that apply to no image are omitted.
    """
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    scores: dict[str, dict[str, FloatArray]] = {}
    for kind in SYNTHETIC_ANOMALIES:
        synthetic = [
            (key, image)
            for key, view in views
            if (image := make_synthetic_anomaly(kind, key, view, others, seed)) is not None
        ]
        parts: dict[str, list[FloatArray]] = {name: [] for name in experts}
        for start in range(0, len(synthetic), batch_size):
            keys, images = zip(*synthetic[start : start + batch_size], strict=True)
            perception = pipeline.extract(keys, np.stack(images), wanted)
            for name, expert in experts.items():
                parts[name].append(np.asarray(expert.score(perception).scores, dtype=np.float64))
            if on_scored is not None:
                on_scored(len(keys))
        if synthetic:
            scores[kind] = {name: np.concatenate(values) for name, values in parts.items()}
    return scores


def score_known_defects(
    known: Sequence[KnownDefect], pipeline: PerceptionPipeline, experts: Mapping[str, Expert], batch_size: int
) -> SyntheticScores:
    """Score known defects.

    Args:
        known: The defects.
        pipeline: The extractors.
        experts: Fitted experts by name.
        batch_size: Images per batch.

    Returns:
        Raw scores by family (`known_structural`, `known_logical`, or `known` if the type is unknown) and by expert.
    """
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    scores: dict[str, dict[str, list[FloatArray]]] = {}
    for start in range(0, len(known), batch_size):
        batch = known[start : start + batch_size]
        perception = pipeline.extract([one.row_key for one in batch], np.stack([one.image for one in batch]), wanted)
        families = np.array([one.family for one in batch])
        for name, expert in experts.items():
            values = np.asarray(expert.score(perception).scores, dtype=np.float64)
            for family in sorted(set(families.tolist())):
                scores.setdefault(family, {}).setdefault(name, []).append(values[families == family])
    return {
        family: {name: np.concatenate(parts) for name, parts in by_expert.items()}
        for family, by_expert in scores.items()
    }


def join_synthetic_scores(rounds: Sequence[SyntheticScores]) -> SyntheticScores:
    """Concatenate the scores of several rounds."""
    joined: dict[str, dict[str, FloatArray]] = {}
    for kind in SYNTHETIC_ANOMALIES:
        found = [scores[kind] for scores in rounds if kind in scores]
        if found:
            joined[kind] = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return joined
