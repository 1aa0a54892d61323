"""Size, colour and piece count of the components in a label map (UniAD, section 3.4)."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from pydantic import Field, field_validator
from scipy import ndimage

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.config.base import StrictModel
from uniad_ray.perception.colours import cielab
from uniad_ray.perception.grids import evenly_spaced

FeatureGroup = Literal["area", "colour_ratio", "colour", "quantity"]
Feature = Literal["area", "colour_ratio", "colour_a", "colour_b", "quantity"]

_FEATURES: Final[dict[FeatureGroup, tuple[Feature, ...]]] = {
    "area": ("area",),
    "colour_ratio": ("colour_ratio",),
    "colour": ("colour_a", "colour_b"),
    "quantity": ("quantity",),
}
# 1/500 of the image, the effect of noise on a mean colour, a quarter of a piece: smaller changes are meaningless.
_SMALLEST_CHANGE: Final[dict[Feature, float]] = {
    "area": 0.002,
    "colour_ratio": 0.05,
    "colour_a": 0.5,
    "colour_b": 0.5,
    "quantity": 0.25,
}
_MOST_SAMPLES_A_SIDE: Final = 64
_GREY_ZONE: Final = 5.0
_EIGHT_NEIGHBOURS: Final = np.ones((3, 3), dtype=np.uint8)


class ComponentFeatureConfig(StrictModel):
    """Features that are computed for each component.

    Attributes:
        groups: `area` is the fraction of the image's pixels. `colour_ratio` is the paper's colour, the mean of b/a in
            CIELAB, bounded as b a / (a^2 + 25): it approaches b/a far from grey, and 0 at grey, where b/a is undefined.
            `colour` is mean a and mean b, which are also meaningful for grey parts. `quantity` is the number of pieces.
        piece_size: DBSCAN's `min_samples` on a grid of at most 64 pixels a side: the number of component pixels among a
            pixel and its eight neighbours that makes the pixel a core of a piece.
    """

    groups: tuple[FeatureGroup, ...] = Field(default=("area", "colour", "quantity"), min_length=1)
    piece_size: int = Field(default=5, ge=1, le=9)

    @field_validator("groups")
    @classmethod
    def _distinct(cls, groups: tuple[FeatureGroup, ...]) -> tuple[FeatureGroup, ...]:
        if len(set(groups)) < len(groups):
            raise ValueError(f"groups has duplicates: {', '.join(groups)}")
        return groups

    @property
    def features(self) -> tuple[Feature, ...]:
        """The P features of one component, in order."""
        return tuple(feature for group in self.groups for feature in _FEATURES[group])

    def smallest_changes(self, clusters: int) -> np.ndarray:
        """The smallest meaningful change of each feature: float64, shape (clusters * P,)."""
        return np.tile([_SMALLEST_CHANGE[feature] for feature in self.features], clusters)


def component_features(
    labels: np.ndarray, image: np.ndarray, clusters: int, config: ComponentFeatureConfig
) -> np.ndarray:
    """Computes the features of all components of one image.

    Areas count all pixels. Colours and pieces use evenly spaced pixels, at most 64 on the longest side.

    Args:
        labels: uint8, shape (H, W), values below `clusters`.
        image: uint8, shape (H, W, 3), RGB.
        clusters: Number of components K.
        config: Features to compute.

    Returns:
        float64, shape (K * P,), finite: the P features of component 0, then those of component 1, and so on. An absent
        component has area 0, no pieces, and the colour of grey.
    """
    sides = fitted_size(labels.shape, _MOST_SAMPLES_A_SIDE)
    labels_of_samples = evenly_spaced(labels, *sides)
    columns: dict[Feature, np.ndarray] = {}
    if "area" in config.groups:
        columns["area"] = np.bincount(labels.ravel(), minlength=clusters) / labels.size
    if "quantity" in config.groups:
        columns["quantity"] = np.array(
            [count_pieces(labels_of_samples == label, config.piece_size) for label in range(clusters)]
        )
    if "colour" in config.groups or "colour_ratio" in config.groups:
        _, a, b = np.moveaxis(cielab(evenly_spaced(image, *sides)), -1, 0)
        columns["colour_a"] = _mean_by_label(a, labels_of_samples, clusters)
        columns["colour_b"] = _mean_by_label(b, labels_of_samples, clusters)
        ratio = a * b / (np.square(a) + _GREY_ZONE**2)
        columns["colour_ratio"] = _mean_by_label(ratio, labels_of_samples, clusters)
    return np.stack([columns[feature] for feature in config.features], axis=1).astype(np.float64).ravel()


def count_pieces(mask: np.ndarray, piece_size: int) -> int:
    """The number of clusters that DBSCAN finds among the pixels of a mask, with eps = sqrt(2).

    With this eps, the neighbourhood of a pixel is the pixel and the eight around it. So the clusters are the connected
    components of the core pixels.

    Args:
        mask: bool, shape (h, w).
        piece_size: DBSCAN's `min_samples`.
    """
    neighbours = ndimage.convolve(mask.astype(np.uint8), _EIGHT_NEIGHBOURS, mode="constant")
    _, count = ndimage.label(mask & (neighbours >= piece_size), structure=_EIGHT_NEIGHBOURS)
    return int(count)


def _mean_by_label(values: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Mean of the values under each label: float64, shape (clusters,); 0 for labels without pixels."""
    flat = labels.ravel()
    counts = np.bincount(flat, minlength=clusters)
    return np.bincount(flat, weights=values.ravel(), minlength=clusters) / np.maximum(counts, 1)
