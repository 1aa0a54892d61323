"""Label maps of an image by its colours, at several numbers of clusters."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from uniad_ray.archive.image_size import reduced
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.sampling.image_sample import ImageSample
from uniad_ray.perception.segmentation.colour_clusters import colour_centres, nearest_centre, smoothed_colours


class ColourLabelsConfig(StrictModel):
    """Options of the label maps.

    Attributes:
        clusters: Numbers of colour clusters K, one label map for each.
        images: Maximum number of normal images to cluster, sampled evenly.
        side: Longest side of the label maps, pixels; smaller images keep their size.
        seed: Seed of the sample and of k-means.
    """

    clusters: tuple[int, ...] = Field(default=(2, 3, 4, 6, 8), min_length=1, max_length=8)
    images: int = Field(default=16, ge=2, le=256)
    side: int = Field(default=320, ge=32, le=1024)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class ColourLabels:
    """Labels each pixel with the nearest of the colours that normal images have, without weights.

    Provides `{name}/labels`: uint8, shape (N, M, h, w), one label map for each of the M numbers of clusters for which
    the normal images have enough colours, but at least one. Label 0 is the most frequent colour.
    """

    config_model: ClassVar[type[ColourLabelsConfig]] = ColourLabelsConfig

    def __init__(self, name: str, config: ColourLabelsConfig, device: str) -> None:  # noqa: ARG002
        """Creates an unfitted extractor."""
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)
        self._centres: tuple[np.ndarray, ...] = ()

    @classmethod
    def fields_of(cls, name: str, config: ColourLabelsConfig) -> frozenset[str]:  # noqa: ARG003
        """The names of the provided fields."""
        return frozenset({f"{name}/labels"})

    def fit(self, stream: PerceptionStream) -> None:
        """Clusters the colours in one pass; the order of the images does not matter.

        Args:
            stream: Batches of normal images.

        Raises:
            FitError: There is no image.
        """
        sample: ImageSample[np.ndarray] = ImageSample(self.config.images, self.config.seed)
        for perception in stream():
            for row, row_key in enumerate(perception.row_keys):
                if sample.wants(row_key):
                    sample.add(row_key, self._colours(perception.images[row]))
        colours = sample.by_priority()
        if not colours:
            raise FitError(f"{self.name}: there are no normal images; add some")
        found = colour_centres(colours, self.config.clusters, self.config.seed)
        self._centres = tuple(found.values()) or (colours[0].reshape(-1, 3).mean(axis=0, keepdims=True),)

    def extract(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Labels each image independently.

        Raises:
            FitError: The extractor is not fitted.
        """
        if not self._centres:
            raise FitError(f"{self.name}: the colours are not fitted; fit them or load a bundle first")
        labels = [
            np.stack([nearest_centre(colours, centres) for centres in self._centres])
            for colours in map(self._colours, perception.images)
        ]
        return {f"{self.name}/labels": torch.from_numpy(np.stack(labels))}

    def state(self) -> State:
        """The centres of each clustering in CIELAB: float32, shape (K, 3)."""
        return State(arrays={f"centres_{number}": centres for number, centres in enumerate(self._centres)}, document={})

    def restore(self, state: State) -> None:
        """Restores the centres.

        Raises:
            BundleError: The state has no centres.
        """
        centres = [state.arrays.get(f"centres_{number}") for number in range(len(state.arrays))]
        if not centres or any(one is None or one.ndim != 2 or one.shape[1] != 3 or not len(one) for one in centres):
            raise BundleError(f"{self.name}: the bundle has no colour centres; fit the category again")
        self._centres = tuple(np.asarray(one, dtype=np.float32) for one in centres)

    def lineage(self) -> dict[str, Any]:
        """All options that affect the labels."""
        return self.config.model_dump(mode="json")

    def _colours(self, image: np.ndarray) -> np.ndarray:
        return smoothed_colours(reduced(image, self.config.side))
