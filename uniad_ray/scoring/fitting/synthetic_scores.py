"""Scores of edited normal images by experts that have seen neither the images nor the edits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.fitting.synthetic_anomalies import SYNTHETIC_ANOMALIES, NormalView, make_synthetic_anomaly

MOST_OTHERS: Final = 32
"""Other normal images that pixels are taken from."""

SyntheticScores = Mapping[str, Mapping[str, FloatArray]]
"""Raw scores by edit and by expert, each of shape (edited images,)."""


def normal_views(perceptions: Iterable[Perception], segments: str | None) -> Iterator[tuple[str, NormalView]]:
    """Row key and view of every image of some perceptions.

    Args:
        perceptions: Batches with the segments field, where there is one.
        segments: Field with segments.
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
) -> SyntheticScores:
    """Edits images in every way, and scores the result.

    Args:
        views: Row key and view of each image.
        others: Other normal images, at least one, from which some edits take pixels.
        pipeline: The extractors.
        experts: Fitted experts by name.
        batch_size: Images that pass the networks together.
        seed: Another seed gives other edits.

    Returns:
        By edit and by expert the raw scores, each of shape (edited images,); edits that fit no image are left out.
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
        if synthetic:
            scores[kind] = {name: np.concatenate(values) for name, values in parts.items()}
    return scores


def join_synthetic_scores(rounds: Sequence[SyntheticScores]) -> SyntheticScores:
    """The scores of several rounds as those of one."""
    joined: dict[str, dict[str, FloatArray]] = {}
    for kind in SYNTHETIC_ANOMALIES:
        found = [scores[kind] for scores in rounds if kind in scores]
        if found:
            joined[kind] = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return joined
