"""Scores of synthetic anomalies, and of known defects, by experts that have not seen the original images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.perception.base import Fields, Originals, Perception
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.region import Region
from uniad_ray.perception.value_range import in_value_range
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.complete import score_complete
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect, OriginalsOfDefects
from uniad_ray.scoring.fitting.synthetic.kinds import SYNTHETIC_ANOMALIES, make_synthetic_anomaly, uses_parts
from uniad_ray.scoring.fitting.synthetic.originals import Change, SyntheticOriginals
from uniad_ray.scoring.fitting.synthetic.parts import Parts

MOST_OTHERS: Final = 32
"""Maximum number of other normal images to take pixels from."""

SyntheticScores = Mapping[str, Mapping[str, FloatArray]]
"""Raw scores by kind of synthetic anomaly and by expert, each of shape (anomalies,); NaN without a text."""


def parts_of_images(
    perceptions: Iterable[Perception], segments: Sequence[str]
) -> Iterator[tuple[str, tuple[Parts, ...]]]:
    """Yield row key and parts of every image, by each segmentation.

    Args:
        perceptions: Batches, with the fields of segments.
        segments: Fields of segments; without any, an image has no parts.
    """
    for perception in perceptions:
        for row, (row_key, image) in enumerate(zip(perception.row_keys, perception.images, strict=True)):
            by_segmentation = [Parts(image, perception.segments[name][row]) for name in segments]
            yield row_key, tuple(by_segmentation) or (Parts(image, None),)


def score_synthetic_anomalies(
    images: Sequence[tuple[str, Sequence[Parts]]],
    others: Sequence[Sequence[Parts]],
    pipeline: PerceptionPipeline,
    experts: Mapping[str, Expert],
    *,
    batch_size: int,
    seed: int,
    with_captions: bool = False,
    originals: Originals | None = None,
    on_scored: Callable[[int], None] | None = None,
) -> SyntheticScores:
    """Make synthetic anomalies of every kind from some images, and score them.

    Args:
        images: Row key of each image, and its parts by each segmentation; the images use the segmentations in turn.
        others: Other normal images, in the same way; some kinds take pixels from them.
        pipeline: The extractors.
        experts: Fitted experts by name.
        batch_size: Images per batch.
        seed: Seed of the synthetic anomalies.
        with_captions: Ask a vision-language model about them; else they have no text from it. They never have the text
            of the image that they were made from.
        originals: Image files by row key, for extractors that read them.
        on_scored: Called with the number of images of each batch.

    Returns:
        Raw scores by kind and by expert, each of shape (anomalies,); NaN for an anomaly without a text. Kinds that
        apply to no image are omitted, and experts that no anomaly of a kind has a text for.
    """
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    scores: dict[str, dict[str, FloatArray]] = {}
    withheld = None if with_captions else _NoTexts(pipeline)
    seen = in_value_range(originals or {}, pipeline.value_range)
    for kind in SYNTHETIC_ANOMALIES:
        synthetic = [
            Change(key, parts[0].image, image)
            for number, (key, parts) in enumerate(images)
            if (image := _make_inside(kind, key, number, parts, others, seed, pipeline.region)) is not None
        ]
        parts: list[Mapping[str, Evidence]] = []
        for start in range(0, len(synthetic), batch_size):
            # A key of its own: under that of the original, a table would return the caption of the original.
            changes = {
                hashlib.sha256(f"{change.row_key} {kind}".encode()).hexdigest()[:32]: change
                for change in synthetic[start : start + batch_size]
            }
            changed = np.stack([change.after for change in changes.values()])
            files = SyntheticOriginals(changes, seen) if pipeline.detailed else None
            perception = pipeline.extract(list(changes), changed, wanted, withheld, files)
            parts.append({name: score_complete(expert, perception) for name, expert in experts.items()})
            if on_scored is not None:
                on_scored(len(changes))
        if synthetic:
            scores[kind] = _judged(parts)
    return scores


def _make_inside(
    kind: str,
    row_key: str,
    number: int,
    by_segmentation: Sequence[Parts],
    others: Sequence[Sequence[Parts]],
    seed: int,
    region: Region | None,
) -> np.ndarray | None:
    """Make a synthetic anomaly within the window of the region; None if the kind does not apply, or none is visible.

    Parts are found in painted images, so they are in the window already. Anywhere in the image, most anomalies would
    miss a small region.
    """
    segmentation = number % len(by_segmentation)
    parts, rest = by_segmentation[segmentation], [other[segmentation] for other in others]
    if region is None:
        return make_synthetic_anomaly(kind, row_key, parts, rest, seed)
    window = region.window
    if uses_parts(kind):
        synthetic = make_synthetic_anomaly(kind, row_key, parts, rest, seed)
    else:
        own, *outside = (Parts(one.image[window], None) for one in (parts, *rest))
        made = make_synthetic_anomaly(kind, row_key, own, outside, seed)
        synthetic = None
        if made is not None:
            synthetic = parts.image.copy()
            synthetic[window] = made
    is_visible = synthetic is not None and bool((synthetic != parts.image)[region.inside].any())
    return synthetic if is_visible else None


class _NoTexts:
    """Gives images no text from a vision-language model; implements `StoredFields`."""

    def __init__(self, pipeline: PerceptionPipeline) -> None:
        self.names = frozenset(name for extractor in pipeline.asking for name in extractor.provides)

    def read(self, row_keys: Sequence[str], names: frozenset[str]) -> Fields:
        """See `StoredFields`."""
        return {name: [Missing("synthetic anomalies are not captioned")] * len(row_keys) for name in sorted(names)}


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
        Raw scores by family (`known_structural`, `known_logical`, or `known` if the type is unknown) and by expert;
        NaN for a defect without a text.
    """
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    parts: dict[str, list[Mapping[str, Evidence]]] = {}
    for start in range(0, len(known), batch_size):
        batch = known[start : start + batch_size]
        images, originals = np.stack([one.image for one in batch]), OriginalsOfDefects(batch)
        files = originals if pipeline.detailed else None
        perception = pipeline.extract([one.row_key for one in batch], images, wanted, originals=files)
        evidence = {name: score_complete(expert, perception) for name, expert in experts.items()}
        families = np.array([one.family for one in batch])
        for family in sorted(set(families.tolist())):
            rows = np.flatnonzero(families == family).tolist()
            parts.setdefault(family, []).append({name: item.select(rows) for name, item in evidence.items()})
    return {family: _judged(own) for family, own in parts.items()}


def without_gaps(scores: Mapping[str, FloatArray], judged: Collection[str]) -> dict[str, FloatArray]:
    """Scores of the images that none of the named experts lacks a text for.

    Args:
        scores: Raw scores by expert, each of shape (images,); NaN for an image without a text.
        judged: Names of experts in `scores`.
    """
    if not judged:
        return dict(scores)
    is_complete = ~np.any([np.isnan(scores[name]) for name in judged], axis=0)
    return {name: values[is_complete] for name, values in scores.items()}


def _judged(parts: Sequence[Mapping[str, Evidence]]) -> dict[str, FloatArray]:
    """Scores by expert, each of shape (images,); an expert that lacks the texts of all images is omitted.

    NaN stands for a missing text alone. Rows stay, because experts that are judged later have the same images.
    """
    names = [name for name in parts[0] if any(len(one[name].left_out) < len(one[name].scores) for one in parts)]
    scores: dict[str, list[FloatArray]] = {name: [] for name in names}
    for part in parts:
        for name in names:
            values = np.asarray(part[name].scores, dtype=np.float64)
            values = np.where(np.isfinite(values), values, np.inf)
            values[list(part[name].left_out)] = np.nan
            scores[name].append(values)
    return {name: np.concatenate(values) for name, values in scores.items()}


def join_synthetic_scores(rounds: Sequence[SyntheticScores]) -> SyntheticScores:
    """Concatenate the scores of several rounds."""
    joined: dict[str, dict[str, FloatArray]] = {}
    for kind in SYNTHETIC_ANOMALIES:
        found = [scores[kind] for scores in rounds if kind in scores]
        if found:
            names = [name for name in found[0] if all(name in one for one in found)]
            joined[kind] = {name: np.concatenate([one[name] for one in found]) for name in names}
    return joined
