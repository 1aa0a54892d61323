"""A segmenter without weights: it finds the parts of a product from the colours of its normal images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from uniad_ray.archive.image_size import fitted_size, reduced
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.grids import evenly_spaced
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.segmentation.colour_clusters import (
    colour_centres,
    edge_ranks,
    nearest_centre,
    smoothed_colours,
)
from uniad_ray.perception.segmentation.part_candidates import (
    SAME_OBJECT,
    LabelSet,
    PartCriteria,
    choose_label_sets,
)
from uniad_ray.perception.segmentation.regions import region_overlaps
from uniad_ray.perception.segments import Segments


class PartSegmenterConfig(StrictModel):
    """Options of the segmenter.

    Attributes:
        clusters: Numbers of colour clusters K to compare; a part is found with most of them.
        rarity: How much rare colours count in the clustering: 0 counts every pixel alike, 1 every colour.
        least_persistence: IoU with which other numbers of clusters find a region again that is certainly no part.
        least_edge: Mean rank of the edges, among those of its image, along the border of a region that is certainly no
            part.
        scrap_cost: Loss per region that is no part, in the choice of labels; a part that is found gains at most 1.
        smallest_areas: Candidates for the minimum area of a segment, as fractions of the image, ascending.
        largest_area: Maximum area of a segment, as a fraction of the image.
        most_sets: Maximum number of label sets to cut out of one image; time grows with it.
        necks: Candidates for cutting heaps of touching parts. A region is cut where it is narrower than this fraction
            of its greatest width.
        images: Maximum number of normal images to use for the fit, sampled evenly.
        fit_side: Longest side of the images in the fit, pixels; afterwards images are segmented at their own size.
        side: Longest side of the masks, pixels.
        seed: Seed of the sample and of k-means.
    """

    clusters: tuple[int, ...] = Field(default=(2, 3, 4, 6, 8), min_length=2, max_length=8)
    rarity: float = Field(default=0.0, ge=0.0, le=1.0)
    least_persistence: float = Field(default=0.7, ge=0.0, lt=1.0)
    least_edge: float = Field(default=0.6, ge=0.0, lt=1.0)
    scrap_cost: float = Field(default=0.15, ge=0.0, le=1.0)
    smallest_areas: tuple[float, ...] = Field(default=(0.0005, 0.002, 0.008), min_length=1, max_length=8)
    largest_area: float = Field(default=0.35, gt=0.0, le=1.0)
    most_sets: int = Field(default=4, ge=1, le=16)
    necks: tuple[float, ...] = Field(default=(0.5, 0.7), max_length=4)
    images: int = Field(default=16, ge=2, le=256)
    fit_side: int = Field(default=256, ge=64, le=1024)
    side: int = Field(default=320, ge=16, le=1024)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class PartSegmenter:
    """Cuts parts out of an image by their colours.

    The fit clusters the colours of normal images with several numbers of clusters, and chooses the labels whose
    connected regions are found again with the other numbers. An image without such regions has no segments. Segments
    may be nested, such as a label on a bottle, but never share more than half of their union.

    Provides `{name}/segments`: segments with masks of at most `side` pixels. The confidence of a segment is the
    fraction of its box that it fills.
    """

    config_model: ClassVar[type[PartSegmenterConfig]] = PartSegmenterConfig

    def __init__(self, name: str, config: PartSegmenterConfig, device: str) -> None:  # noqa: ARG002
        """Creates an unfitted segmenter."""
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._centres: dict[int, np.ndarray] = {}
        self._chosen: tuple[LabelSet, ...] | None = None

    @classmethod
    def fields_of(cls, name: str, config: PartSegmenterConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/segments"})

    def fit(self, stream: PerceptionStream) -> None:
        """Chooses labels in one pass; the order of the images does not matter.

        Args:
            stream: Batches of normal images.

        Raises:
            FitError: There are fewer than two images.
        """
        sample: ImageSample[np.ndarray] = ImageSample(self.config.images, self.config.seed)
        for perception in stream():
            for row, row_key in enumerate(perception.row_keys):
                if sample.wants(row_key):
                    sample.add(row_key, smoothed_colours(reduced(perception.images[row], self.config.fit_side)))
        colours = sample.by_priority()
        if len(colours) < 2:
            raise FitError(f"{self.name}: at least 2 normal images are needed, not {len(colours)}; add some")
        centres = colour_centres(colours, self.config.clusters, self.config.seed, self.config.rarity)
        maps = [{clusters: nearest_centre(one, found) for clusters, found in centres.items()} for one in colours]
        config = self.config
        criteria = PartCriteria(
            least_persistence=config.least_persistence,
            least_edge=config.least_edge,
            scrap_cost=config.scrap_cost,
            areas=config.smallest_areas,
            largest_area=config.largest_area,
            most_sets=config.most_sets,
            necks=config.necks,
        )
        self._chosen = (
            choose_label_sets(maps, [edge_ranks(one) for one in colours], criteria) if len(centres) > 1 else ()
        )
        self._centres = {clusters: centres[clusters] for clusters in {one.clusters for one in self._chosen}}

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        """Segments each image independently.

        Raises:
            FitError: The segmenter is not fitted.
        """
        if self._chosen is None:
            raise FitError(f"{self.name}: the segmenter is not fitted; fit it or load a bundle first")
        return {f"{self.name}/segments": [self._segments(image) for image in perception.images]}

    def state(self) -> State:
        """The chosen labels, and the colour centres of their clusterings."""
        return State(
            arrays={str(clusters): centres for clusters, centres in sorted(self._centres.items())},
            document={"label_sets": [one._asdict() for one in self._chosen or ()]},
        )

    def restore(self, state: State) -> None:
        """Restores the chosen labels.

        Raises:
            BundleError: The state does not match this configuration.
        """
        try:
            chosen = tuple(
                LabelSet(
                    int(one["clusters"]),
                    tuple(map(int, one["labels"])),
                    float(one["smallest_area"]),
                    float(one["neck"]),
                )
                for one in state.document["label_sets"]
            )
            centres = {one.clusters: np.asarray(state.arrays[str(one.clusters)], dtype=np.float32) for one in chosen}
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.name}: the bundle has no labels of parts ({error}); fit again") from error
        if any(array.shape != (clusters, 3) for clusters, array in centres.items()):
            raise BundleError(f"{self.name}: the bundle has colour centres of another shape; fit again")
        self._chosen, self._centres = chosen, centres

    def lineage(self) -> dict[str, Any]:
        """All options that affect the segments."""
        return self.config.model_dump(mode="json")

    def _segments(self, image: np.ndarray) -> Segments:
        size = fitted_size(image.shape[:2], self.config.side)
        colours = smoothed_colours(image)
        maps: list[np.ndarray] = []
        for one in self._chosen or ():
            label_map = nearest_centre(colours, self._centres[one.clusters])
            regions = evenly_spaced(one.regions(label_map, self.config.largest_area), *size)
            maps.append(_new_regions(regions, maps))
        masks = [each == np.arange(1, int(each.max()) + 1)[:, None, None] for each in maps]
        segments = Segments.of(np.concatenate(masks) if masks else np.zeros((0, *size), dtype=bool))
        heights, widths = (segments.boxes[:, 2:] - segments.boxes[:, :2]).T
        filled = segments.areas / np.maximum(heights * widths, 1e-6)
        return replace(segments, confidences=np.minimum(filled, 1.0).astype(np.float32))


def _new_regions(regions: np.ndarray, known: Sequence[np.ndarray]) -> np.ndarray:
    """The label map without the regions that other maps of the image show already."""
    count = int(regions.max())
    repeated = np.zeros(count + 1, dtype=bool)
    for other in known:
        overlaps = region_overlaps(regions, other)
        repeated[1:] |= (overlaps > SAME_OBJECT).any(axis=1)
    return np.asarray(np.where(repeated[regions], 0, regions))
