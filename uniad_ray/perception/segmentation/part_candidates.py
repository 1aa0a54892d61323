"""The choice of label sets whose regions are parts: regions that return whatever the number of clusters, with edges.

The colours of a part form a cluster of their own, so nearly the same region is found with three clusters and with
eight, and its border is an edge of the image. A blob in the grain of wood or cloth changes with every other number, and
its border is no steeper than the grain: it is no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from uniad_ray.perception.segmentation.regions import find_regions, split_regions

_MOST_REGIONS: Final = 128
"""Maximum number of regions of a label set in one image that take part in the choice."""
SAME_OBJECT: Final = 0.5
"""Minimum IoU of two regions that are the same object."""
_WITNESSES: Final = 2
"""Number of other clusterings that must find a region again."""
_FRAME: Final = 4
"""Width of the frame, pixels, that tells ground from foreground."""
_LEAST_WORTH: Final = 0.2
"""Minimum worth of an object: the product of its persistence and its edges, each above its minimum."""
_MUCH_MORE_ALIKE: Final = 0.9
"""Spread of the sizes of parts, relative to that of whole regions, below which regions are cut."""
_FEWEST_REGIONS: Final = 8
"""Mean number of regions of an image from which their sizes tell heaps from large parts."""
_LARGEST_GRAIN: Final = 0.005
"""Largest median area of the parts of heaps, as a fraction of the image; a larger region may just have a waist."""
_LEAST_GAIN: Final = 0.03
"""Minimum gain of another label set, as a fraction of all that could be gained."""


class LabelSet(NamedTuple):
    """Regions to cut out: those of some labels of one clustering.

    Attributes:
        clusters: Number of clusters K of the clustering.
        labels: The labels in the foreground, ascending.
        smallest_area: Minimum area of a region, as a fraction of the image.
        neck: Where regions are cut; see `split_regions`.
    """

    clusters: int
    labels: tuple[int, ...]
    smallest_area: float
    neck: float = 0.0

    def regions(self, label_map: np.ndarray, largest_area: float) -> np.ndarray:
        """The regions of one image as a label map: uint16, shape (h, w), 0 outside of them."""
        found = find_regions(self.mask(label_map), self.smallest_area, largest_area)
        return split_regions(found, self.neck, self.smallest_area)

    def mask(self, label_map: np.ndarray) -> np.ndarray:
        """Where an image has these labels: bool, shape (h, w)."""
        return np.asarray(np.isin(np.arange(self.clusters), self.labels)[label_map])


@dataclass(frozen=True)
class PartCriteria:
    """What a region must have to count as a part, and what a wrong one costs.

    Attributes:
        least_persistence: Persistence of a region that is worth nothing, in 0..1.
        least_edge: Agreement with edges of a region that is worth nothing, in 0..1.
        scrap_cost: Loss per image for each region that is no persistent object; an object gains at most 1.
        areas: Candidates for the minimum area of a region, as fractions of the image, ascending.
        largest_area: Maximum area of a region, as a fraction of the image.
        most_sets: Maximum number of label sets.
        necks: Candidates for the neck.
    """

    least_persistence: float
    least_edge: float
    scrap_cost: float
    areas: tuple[float, ...]
    largest_area: float
    most_sets: int
    necks: tuple[float, ...]


def candidate_sets(label_maps: Sequence[Mapping[int, np.ndarray]]) -> list[tuple[int, tuple[int, ...]]]:
    """Label sets that could be parts: each label alone, and all but those that fill most of the frame.

    Args:
        label_maps: The label map of each image by number of clusters.

    Returns:
        Pairs of a number of clusters and labels, ascending.
    """
    found: list[tuple[int, tuple[int, ...]]] = []
    for clusters in sorted(label_maps[0]):
        frame = np.concatenate([_frame(maps[clusters]) for maps in label_maps])
        from_ground = np.argsort(-np.bincount(frame, minlength=clusters), kind="stable")
        sets: set[tuple[int, ...]] = {(label,) for label in range(clusters)}
        sets |= {tuple(sorted(from_ground[ground:].tolist())) for ground in range(1, clusters)}
        found += [(clusters, labels) for labels in sorted(sets)]
    return found


def choose_label_sets(
    label_maps: Sequence[Mapping[int, np.ndarray]], edges: Sequence[np.ndarray], criteria: PartCriteria
) -> tuple[LabelSet, ...]:
    """Chooses the label sets that show most of the objects of normal images and the fewest scraps.

    Args:
        label_maps: The label map of each image by number of clusters, uint8, shape (h, w).
        edges: Rank of the edge at each pixel of each image: float32, shape (h, w), in 0..1.
        criteria: What a part is.

    Returns:
        The chosen sets, the one with the greatest gain first; none if no region is an object.
    """
    candidates = candidate_sets(label_maps)
    images = [
        _ImageRegions.of(maps, ranks, candidates, criteria) for maps, ranks in zip(label_maps, edges, strict=True)
    ]
    covers = {
        LabelSet(*candidates[index], smallest): [image.cover(index, smallest) for image in images]
        for index in range(len(candidates))
        for smallest in criteria.areas
    }
    possible = sum(float(image.worth.sum()) for image in images) / len(images)
    chosen: list[LabelSet] = []
    shown = [np.zeros(len(image.worth)) for image in images]
    while len(chosen) < criteria.most_sets and possible:
        taken = {(one.clusters, one.labels) for one in chosen}
        gains = {
            option: _gain(images, shown, cover, criteria.scrap_cost)
            for option, cover in covers.items()
            if (option.clusters, option.labels) not in taken
        }
        best = max(gains, key=lambda option: (gains[option], -option.smallest_area))
        if gains[best] < _LEAST_GAIN * possible:
            break
        chosen.append(best)
        shown = [np.maximum(old, new) for old, (new, _) in zip(shown, covers[best], strict=True)]
    return tuple(_with_best_neck(one, label_maps, criteria) for one in chosen)


@dataclass(frozen=True)
class _ImageRegions:
    """All candidate regions of one image.

    Attributes:
        sets: Index of the label set of each region: int64, shape (n,).
        areas: Area of each region as a fraction of the image, shape (n,).
        overlaps: IoU of each region with each object: float32, shape (n, m).
        worth: How much it is worth to show each object, in 0..1, shape (m,).
    """

    sets: np.ndarray
    areas: np.ndarray
    overlaps: np.ndarray
    worth: np.ndarray

    @classmethod
    def of(
        cls,
        label_maps: Mapping[int, np.ndarray],
        edges: np.ndarray,
        candidates: Sequence[tuple[int, tuple[int, ...]]],
        criteria: PartCriteria,
    ) -> _ImageRegions:
        """Finds the regions, what they are worth, and the objects among them."""
        smallest = criteria.areas[0]
        maps = [
            find_regions(
                LabelSet(*one, smallest).mask(label_maps[one[0]]), smallest, criteria.largest_area, _MOST_REGIONS
            )
            for one in candidates
        ]
        counts = [int(regions.max()) for regions in maps]
        sets = np.repeat(np.arange(len(maps)), counts)
        areas = np.concatenate([np.bincount(regions.ravel(), minlength=1)[1:] for regions in maps])
        overlaps = _overlaps_of_all(maps, counts, areas)
        persistence = persistence_of(overlaps, np.array([one[0] for one in candidates])[sets])
        agreement = np.concatenate([edge_agreement(regions, edges) for regions in maps])
        worth = _above(persistence, criteria.least_persistence) * _above(agreement, criteria.least_edge)
        objects = distinct_objects(overlaps, worth, _LEAST_WORTH)
        return cls(sets, areas / maps[0].size, overlaps[:, objects], worth[objects])

    def cover(self, label_set: int, smallest: float) -> tuple[np.ndarray, int]:
        """How well a label set shows each object (IoU, or 0 if another object), and its number of scraps."""
        overlaps = self.overlaps[(self.sets == label_set) & (self.areas >= smallest)]
        overlaps = np.where(overlaps > SAME_OBJECT, overlaps, 0.0)
        return overlaps.max(axis=0, initial=0.0), int((~overlaps.any(axis=1)).sum())


def persistence_of(overlaps: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """How well each region is found again with other numbers of clusters.

    Args:
        overlaps: IoU of each pair of regions: float32, shape (n, n).
        clusters: Number of clusters by which each region was found: int64, shape (n,).

    Returns:
        float32, shape (n,), in 0..1: the best IoU with a region of another clustering, for the clustering that agrees
        second best.
    """
    numbers = np.unique(clusters)
    best = np.zeros((max(len(numbers), _WITNESSES), len(clusters)), dtype=np.float32)
    for row, number in enumerate(numbers):
        of_number = clusters == number
        best[row] = np.where(of_number, 0.0, overlaps[:, of_number].max(axis=1, initial=0.0))
    return np.asarray(np.sort(best, axis=0)[-_WITNESSES])


def edge_agreement(regions: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How well the border of each region follows edges of the image.

    Args:
        regions: int, shape (h, w): 1..n inside of the regions, 0 elsewhere.
        edges: Rank of the edge at each pixel: float32, shape (h, w), in 0..1.

    Returns:
        float64, shape (n,), in 0..1: the mean rank along the inner border of the region.
    """
    padded = np.pad(regions, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    border = np.logical_or.reduce([neighbour != regions for neighbour in neighbours]) & (regions > 0)
    length = int(regions.max()) + 1
    pixels = np.bincount(regions[border], minlength=length)[1:]
    return np.asarray(np.bincount(regions[border], edges[border], length)[1:] / np.maximum(pixels, 1))


def distinct_objects(overlaps: np.ndarray, worth: np.ndarray, least: float) -> np.ndarray:
    """The worthiest region of each object: regions worth less that have an IoU above 0.5 with it are the same object.

    Args:
        overlaps: IoU of each pair of regions: float32, shape (n, n).
        worth: float, shape (n,).
        least: Minimum worth of an object.

    Returns:
        Indices of regions, int64, shape (m,), by descending worth.
    """
    free = worth >= least
    found = []
    for region in np.argsort(-worth, kind="stable"):
        if free[region]:
            found.append(int(region))
            free &= overlaps[region] <= SAME_OBJECT
    return np.array(found, dtype=np.int64)


def _above(values: np.ndarray, least: float) -> np.ndarray:
    """The values from `least` to 1, as 0 to 1."""
    return np.clip((values - least) / (1.0 - least), 0.0, 1.0)


def _with_best_neck(
    label_set: LabelSet, label_maps: Sequence[Mapping[int, np.ndarray]], criteria: PartCriteria
) -> LabelSet:
    """Cuts regions where this makes their sizes clearly more alike: then many regions are heaps of touching parts."""

    def areas_of(option: LabelSet) -> np.ndarray:
        maps = (option.regions(one[option.clusters], criteria.largest_area) for one in label_maps)
        return np.concatenate([np.bincount(regions.ravel(), minlength=1)[1:] for regions in maps])

    whole = areas_of(label_set)
    if len(whole) < _FEWEST_REGIONS * len(label_maps):
        return label_set
    areas = {neck: areas_of(label_set._replace(neck=neck)) for neck in criteria.necks}
    most = _LARGEST_GRAIN * label_maps[0][label_set.clusters].size
    spreads = {neck: float(np.log(cut).std()) for neck, cut in areas.items() if np.median(cut) <= most}
    best = min(spreads, key=lambda neck: (spreads[neck], neck), default=0.0)
    return (
        label_set._replace(neck=best)
        if spreads.get(best, np.inf) < _MUCH_MORE_ALIKE * np.log(whole).std()
        else label_set
    )


def _gain(
    images: Sequence[_ImageRegions],
    shown: Sequence[np.ndarray],
    cover: Sequence[tuple[np.ndarray, int]],
    scrap_cost: float,
) -> float:
    total = 0.0
    for image, old, (new, scraps) in zip(images, shown, cover, strict=True):
        total += float((image.worth * np.maximum(new - old, 0.0)).sum()) - scrap_cost * scraps
    return total / len(images)


def _overlaps_of_all(maps: Sequence[np.ndarray], counts: Sequence[int], areas: np.ndarray) -> np.ndarray:
    """IoU of each pair of regions of several label maps: float32, shape (n, n)."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    total = int(starts[-1])
    # The regions of all maps have distinct numbers from 1.
    numbered = np.stack([np.where(one, one + start, 0).ravel() for one, start in zip(maps, starts, strict=False)])
    overlaps = np.zeros((total, total), dtype=np.float32)
    for one, start, count in zip(maps, starts, counts, strict=False):
        inside = np.flatnonzero(one)
        joint = (one.ravel()[inside] - np.int64(1)) * (total + 1) + numbered[:, inside]
        shared = np.bincount(joint.ravel(), minlength=count * (total + 1)).reshape(count, total + 1)[:, 1:]
        rows = slice(start, start + count)
        overlaps[rows] = shared / (areas[rows, None] + areas[None] - shared)
    return overlaps


def _frame(label_map: np.ndarray) -> np.ndarray:
    inner = np.zeros(label_map.shape, dtype=bool)
    inner[_FRAME:-_FRAME, _FRAME:-_FRAME] = True
    return label_map[~inner]
