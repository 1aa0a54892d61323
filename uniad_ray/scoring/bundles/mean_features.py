"""Means of feature maps over an image, to compare the images of one night with those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from uniad_ray.archive.images import decode_image
from uniad_ray.errors import ImageError
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.factory import build_experts, needs_of

_BATCH: Final = 8


class MeanFeatures:
    """Measures images with the networks of a bundle.

    Attributes:
        fields: Feature maps that are averaged, in the order of the result.
    """

    def __init__(self, pipeline: PerceptionPipeline, fields: frozenset[str], image_size: tuple[int, int]) -> None:
        """Takes the parts; `mean_features` finds them in a bundle.

        Args:
            pipeline: Extractors of the fields.
            fields: Fields; those that are no feature maps, such as segments, are left out.
            image_size: Height and width that images are decoded to, pixels.
        """
        self.fields = tuple(sorted(fields))
        self._pipeline = pipeline
        self._image_size = image_size

    def __call__(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Means of all channels over each image, or over the region of the bundle; empty for images that are corrupt.

        Args:
            images: Encoded files.
        """
        found: list[tuple[float, ...]] = []
        for start in range(0, len(images), _BATCH):
            decoded = [self._decoded(data) for data in images[start : start + _BATCH]]
            measured = iter(self._means([pixels for pixels in decoded if pixels is not None]))
            found += [() if pixels is None else next(measured) for pixels in decoded]
        return found

    def _decoded(self, data: bytes) -> np.ndarray | None:
        try:
            return decode_image(data, self._image_size, value_range=self._pipeline.value_range)
        except ImageError:
            return None

    def _means(self, images: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
        if not images:
            return []
        keys = [str(number) for number in range(len(images))]
        perception = self._pipeline.extract(keys, np.stack(images), frozenset(self.fields))
        region = self._pipeline.region
        means = []
        for name in self.fields:
            values = perception.fields.get(name)
            if values is None or values.ndim != 4 or not values.is_floating_point():
                continue
            maps = values.float().cpu().numpy()
            inside = np.ones(maps.shape[2:], bool) if region is None else region.cells(maps.shape[2:])
            means.append(maps[:, :, inside].mean(axis=2, dtype=np.float64).astype(np.float32))
        together = np.concatenate(means, axis=1) if means else np.empty((len(images), 0), np.float32)
        return [tuple(row.tolist()) for row in together]


def mean_features(bundle: Bundle, *, device: str = "cpu") -> MeanFeatures | None:
    """The feature maps of the first expert whose networks were not trained on the normal images.

    A trained network knows the images of the fit better than new ones, so its features differ without any drift.

    Args:
        bundle: The bundle.
        device: Torch device.

    Returns:
        None if there is no such expert.

    Raises:
        BundleError: The stored state does not match this version of the code.
        ConfigError: The class of an expert cannot be imported.
        WeightsError: Weights are missing or differ from those of the fit.
    """
    config = bundle.manifest.config
    for name, expert in build_experts(config, only=bundle.manifest.taking_part).items():
        pipeline = bundle.pipeline(needs_of({name: expert}), device=device)
        if expert.needs and not (pipeline.stateful or pipeline.reads_originals):
            return MeanFeatures(pipeline, expert.needs, config.decoded_size)
    return None
