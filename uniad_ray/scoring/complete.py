"""Scores by an expert of the images that have what it needs; the expert is left out for the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.perception.base import Perception, PerceptionStream


def score_complete(expert: Expert, perception: Perception) -> Evidence:
    """Score the images of a batch that lack no field of an expert.

    Returns:
        The evidence of all N images. For an image that lacks a field, `left_out` has the reason, and the score is NaN.
    """
    lacking = perception.lacking(expert.needs)
    if not lacking:
        return expert.score(perception)
    complete = perception.complete(expert.needs)
    rows = [row for row, key in enumerate(perception.row_keys) if key not in lacking]
    count = len(perception)
    scores = np.full(count, np.nan, dtype=np.float32)
    maps = None
    reasons: list[list[str]] = [[] for _ in range(count)]
    if rows:
        found = expert.score(complete)
        scores[rows] = found.scores
        if found.maps is not None:
            maps = np.zeros((count, *found.maps.shape[1:]), dtype=found.maps.dtype)
            maps[rows] = found.maps
        for row, own in zip(rows, found.reasons, strict=True):
            reasons[row] = list(own)
    left_out = {row: lacking[key] for row, key in enumerate(perception.row_keys) if key in lacking}
    return Evidence(scores, maps, reasons, left_out)


def complete_stream(stream: PerceptionStream, needs: frozenset[str]) -> PerceptionStream:
    """Return the stream without the images that lack one of some fields."""

    def start() -> Iterator[Perception]:
        for perception in stream():
            complete = perception.complete(needs)
            if len(complete):
                yield complete

    return start


def rows_by_left_out(evidence: Mapping[str, Evidence], count: int) -> dict[tuple[str, ...], list[int]]:
    """Group the rows of a batch by the experts that are left out, in the order of the experts.

    Args:
        evidence: Evidence by expert of the same images.
        count: Number of images.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in range(count):
        absent = tuple(name for name, item in evidence.items() if row in item.left_out)
        groups.setdefault(absent, []).append(row)
    return groups
