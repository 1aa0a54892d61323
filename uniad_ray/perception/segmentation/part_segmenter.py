"""A segmenter that needs no weights of its own: the pieces of those components whose number is regular."""

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
from uniad_ray.perception.grids import evenly_spaced
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
        components: Names of the components extractors whose labels are taken, one a scale.
        joined_labels: The foreground of a scale is a set of up to so many labels, or fewer where there are more than
            300 such sets.
        necks: A piece is cut where it is narrower than one of these shares of its greatest width; 0 cuts nothing.
        smallest_area: Least area of a segment, as a share of the image.
        largest_area: Most area of one.
        largest_overlap: A segment of another scale is left out if more than this share of it is covered already.
        images: The most normal images that are looked at for the choice, sampled evenly.
        side: Side of the masks.
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
    """How one scale is segmented: which of the `components`, which labels are foreground, and where pieces are cut."""

    scale: int
    foreground: tuple[int, ...]
    neck: float


class PartSegmenter:
    """Segments of the foreground, scale by scale.

    At each scale the foreground is that set of labels, and the cut that one, whose pieces are the most regular in
    number over normal images. Scales whose pieces are no more regular than chance are left out; the most regular one
    comes first, and others add only what it has not covered.

    Provides `{name}/segments`: the segments, masks of `side` pixels. A segment's confidence is the share of its box
    that it fills.
    """

    config_model: ClassVar[type[PartSegmenterConfig]] = PartSegmenterConfig

    def __init__(self, name: str, config: PartSegmenterConfig, device: str) -> None:  # noqa: ARG002
        """A segmenter that has not been fitted yet."""
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
        """Chooses foreground and cut of each scale in one pass; the order of the images does not matter.

        Args:
            stream: The normal perceptions.

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
        """Segments every image by itself.

        Raises:
            FitError: The segmenter is not fitted.
        """
        if not self._choices:
            raise FitError(f"{self.name}: the segmenter is not fitted; fit it or load a bundle first")
        return {f"{self.name}/segments": [self._segments(perception, row) for row in range(len(perception))]}

    def state(self) -> State:
        """The choices, the most regular first."""
        return State(document={"choices": [one._asdict() for one in self._choices]})

    def restore(self, state: State) -> None:
        """Takes over the choices.

        Raises:
            BundleError: There are none of this configuration.
        """
        try:
            choices = tuple(
                _Choice(int(one["scale"]), tuple(map(int, one["foreground"])), float(one["neck"]))
                for one in state.document["choices"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.name}: the bundle holds no choice of foreground ({error}); fit again") from error
        if not choices or any(one.scale >= len(self._labels) for one in choices):
            raise BundleError(f"{self.name}: the bundle holds no choice of foreground for these components; fit again")
        self._choices = choices

    def lineage(self) -> dict[str, Any]:
        """All that changes the segments."""
        return self.config.model_dump(mode="json")

    def _candidates(self, perception: Perception) -> Iterator[_Choice]:
        for scale, similarity in enumerate(self._similarities):
            for foreground in _label_sets(perception.fields[similarity].shape[1], self.config.joined_labels):
                for neck in self.config.necks:
                    yield _Choice(scale, foreground, neck)

    def _segments(self, perception: Perception, row: int) -> Segments:
        side = self.config.side
        covered = np.zeros((side, side), dtype=bool)
        masks: list[np.ndarray] = []
        for choice in self._choices:
            regions = self._regions(perception, row, choice, side)
            found = regions == np.arange(1, int(regions.max()) + 1)[:, None, None]
            added = [mask for mask in found if (mask & covered).sum() <= self.config.largest_overlap * mask.sum()]
            masks += added
            covered |= np.any(added, axis=0) if added else False
        stacked = np.array(masks, dtype=bool).reshape(len(masks), side, side)
        segments = Segments.of(stacked)
        heights, widths = (segments.boxes[:, 2:] - segments.boxes[:, :2]).T
        filled = segments.areas / np.maximum(heights * widths, 1e-6)
        return Segments.of(segments.masks(), np.minimum(filled, 1.0))

    def _regions(self, perception: Perception, row: int, choice: _Choice, most: int) -> np.ndarray:
        labels = perception.fields[self._labels[choice.scale]][row, 0].cpu().numpy()
        sampled = evenly_spaced(labels, most, most)
        mask = np.asarray(np.isin(np.arange(_LABELS), choice.foreground)[sampled])
        regions = find_regions(mask, self.config.smallest_area, self.config.largest_area)
        return split_regions(regions, choice.neck, self.config.smallest_area)


def _label_sets(labels: int, largest: int) -> list[tuple[int, ...]]:
    """Every set of 1 to `largest` labels that leaves at least one out; only smaller ones where these are too many."""
    sets: list[tuple[int, ...]] = []
    for size in range(1, min(largest, labels - 1) + 1):
        if sets and len(sets) + math.comb(labels, size) > _MOST_LABEL_SETS:
            break
        sets += itertools.combinations(range(labels), size)
    return sets
