"""A segmenter without weights of its own, based on components with regular counts of pieces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced, grid_size
from uniad_ray.perception.regularity import count_regularity
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.segmentation.regions import find_regions, split_regions
from uniad_ray.perception.segments import Segments

_SIDE_FOR_COUNTING: Final = 64
_MOST_LABEL_SETS: Final = 300
_LABELS: Final = 256


class PartSegmenterConfig(StrictModel):
    """Options of the segmenter.

    Attributes:
        components: Names of the components extractors to use, one per scale.
        joined_labels: Maximum number of labels in the foreground of a scale; reduced if there would be more than 300
            sets of labels to try.
        necks: Candidate thresholds for cutting. A piece is cut where it is narrower than this fraction of its greatest
            width; 0 cuts nothing.
        smallest_area: Minimum area of a segment, as a fraction of the image.
        largest_area: Maximum area of a segment, as a fraction of the image.
        largest_overlap: A segment of a later scale is dropped if more than this fraction of it is already covered.
        images: Maximum number of normal images to use for the fit, sampled evenly.
        side: Longest side of the masks, pixels; they have the aspect ratio of the image.
        seed: Seed of the sample.
    """

    components: tuple[str, ...] = Field(min_length=1, max_length=4)
    joined_labels: int = Field(default=3, ge=1, le=8)
    necks: tuple[float, ...] = Field(default=(0.0, 0.5), min_length=1, max_length=4)
    smallest_area: float = Field(default=0.003, gt=0.0, lt=1.0)
    largest_area: float = Field(default=0.25, gt=0.0, le=1.0)
    largest_overlap: float = Field(default=0.3, ge=0.0, lt=1.0)
    images: int = Field(default=256, ge=2, le=2000)
    side: int = Field(default=128, ge=16, le=1024)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class _Choice(NamedTuple):
    """The settings of one scale: index into `components`, foreground labels, and neck threshold."""

    scale: int
    foreground: tuple[int, ...]
    neck: float


class PartSegmenter:
    """Segments the foreground, scale by scale.

    The fit selects, for each scale, the foreground labels and the neck threshold with the most regular number of pieces
    over normal images. Scales that are no more regular than chance are dropped, except the best one. The most regular
    scale comes first; later scales only add what is not yet covered.

    Provides `{name}/segments`: segments with masks whose longest side is `side` pixels. The confidence of a segment is
    the fraction of its box that it fills.
    """

    config_model: ClassVar[type[PartSegmenterConfig]] = PartSegmenterConfig

    def __init__(self, name: str, config: PartSegmenterConfig, device: str) -> None:  # noqa: ARG002
        """Creates an unfitted segmenter."""
        self.name = name
        self.config = config
        self._labels = [f"{components}/labels" for components in config.components]
        self._similarities = [f"{components}/similarity" for components in config.components]
        self.needs = frozenset([*self._labels, *self._similarities])
        self.provides = self.fields_of(name, config)
        self._choices: tuple[_Choice, ...] = ()

    @classmethod
    def fields_of(cls, name: str, config: PartSegmenterConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/segments"})

    def fit(self, stream: PerceptionStream) -> None:
        """Selects foreground and neck of each scale in one pass; the order of the images does not matter.

        Args:
            stream: Batches of normal images.

        Raises:
            FitError: There are fewer than two images.
        """
        candidates: list[_Choice] = []
        sample: ImageSample[list[int]] = ImageSample(self.config.images, self.config.seed)
        for perception in stream():
            candidates = candidates or list(self._candidates(perception))
            for row, row_key in enumerate(perception.row_keys):
                if sample.wants(row_key):
                    numbers = (self._regions(perception, row, one, _SIDE_FOR_COUNTING).max() for one in candidates)
                    sample.add(row_key, list(map(int, numbers)))
        counts = np.array(sample.by_priority())
        if len(counts) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(counts)}; add some")
        regularity = np.array([count_regularity(column) for column in counts.T])
        best = []
        for scale in range(len(self.config.components)):
            of_scale = [number for number, one in enumerate(candidates) if one.scale == scale]
            best.append(of_scale[int(np.argmax(regularity[of_scale]))])
        best.sort(key=lambda number: -regularity[number])
        self._choices = tuple(candidates[number] for number in best if number == best[0] or regularity[number] > 0)

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Segments each image independently.

        Raises:
            FitError: The segmenter is not fitted.
        """
        if not self._choices:
            raise FitError(f"{self.name}: the segmenter is not fitted; fit it or load a bundle first")
        return {f"{self.name}/segments": [self._segments(perception, row) for row in range(len(perception))]}

    def state(self) -> State:
        """The settings of the scales, the most regular first."""
        return State(document={"choices": [one._asdict() for one in self._choices]})

    def restore(self, state: State) -> None:
        """Restores the settings of the scales.

        Raises:
            BundleError: The state does not match this configuration.
        """
        try:
            choices = tuple(
                _Choice(int(one["scale"]), tuple(map(int, one["foreground"])), float(one["neck"]))
                for one in state.document["choices"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.name}: the bundle has no foreground labels ({error}); fit again") from error
        if not choices or any(one.scale >= len(self._labels) for one in choices):
            raise BundleError(f"{self.name}: the bundle has no foreground labels for these components; fit again")
        self._choices = choices

    def lineage(self) -> dict[str, Any]:
        """All options that affect the segments."""
        return self.config.model_dump(mode="json")

    def _candidates(self, perception: Perception) -> Iterator[_Choice]:
        for scale, similarity in enumerate(self._similarities):
            for foreground in _label_sets(perception.fields[similarity].shape[1], self.config.joined_labels):
                for neck in self.config.necks:
                    yield _Choice(scale, foreground, neck)

    def _segments(self, perception: Perception, row: int) -> Segments:
        size = grid_size(perception.fields[self._labels[0]].shape[-2:], self.config.side)
        covered = np.zeros(size, dtype=bool)
        masks: list[np.ndarray] = []
        for choice in self._choices:
            regions = self._regions(perception, row, choice, self.config.side)
            found = regions == np.arange(1, int(regions.max()) + 1)[:, None, None]
            added = [mask for mask in found if (mask & covered).sum() <= self.config.largest_overlap * mask.sum()]
            masks += added
            covered |= np.any(added, axis=0) if added else False
        stacked = np.array(masks, dtype=bool).reshape(len(masks), *size)
        segments = Segments.of(stacked)
        heights, widths = (segments.boxes[:, 2:] - segments.boxes[:, :2]).T
        filled = segments.areas / np.maximum(heights * widths, 1e-6)
        return Segments.of(segments.masks(), np.minimum(filled, 1.0))

    def _regions(self, perception: Perception, row: int, choice: _Choice, most: int) -> np.ndarray:
        labels = perception.fields[self._labels[choice.scale]][row, 0].cpu().numpy()
        sampled = evenly_spaced(labels, *grid_size(labels.shape, most))
        mask = np.asarray(np.isin(np.arange(_LABELS), choice.foreground)[sampled])
        regions = find_regions(mask, self.config.smallest_area, self.config.largest_area)
        return split_regions(regions, choice.neck, self.config.smallest_area)


def _label_sets(labels: int, largest: int) -> list[tuple[int, ...]]:
    """All proper subsets of 1 to `largest` labels; limited to smaller subsets if there are too many."""
    sets: list[tuple[int, ...]] = []
    for size in range(1, min(largest, labels - 1) + 1):
        if sets and len(sets) + math.comb(labels, size) > _MOST_LABEL_SETS:
            break
        sets += itertools.combinations(range(labels), size)
    return sets
