"""Pixel metrics over many images in bounded memory, in one pass: AUROC, AUPRO and sPRO.

All three are areas under a curve over the false-positive rate: the fraction of defect-free pixels, in normal and
anomalous images, that score above the threshold. As in the official evaluation code of MVTec AD and MVTec LOCO AD, the
curves join the points of all thresholds by straight lines and are cut at the limit by linear interpolation. All that an
image contributes adds up over images, threshold by threshold. So four histograms over the 65,536 values of float16 give
the same metrics as sorting all pixels, in any order of the images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from uniad_ray.metrics.bootstrap import RESAMPLES
from uniad_ray.metrics.coarse_histograms import (
    HISTOGRAMS,
    CoarseHistograms,
    added,
    coarsen,
    merge_bins,
    resampled_sums,
)
from uniad_ray.metrics.map_bins import BINS, map_bins
from uniad_ray.metrics.saturation import Defect

AUPRO_LIMIT = 0.3
"""The limit for MVTec AD of Bergmann et al."""

SPRO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
"""The limits of the official evaluation of MVTec LOCO AD."""

_NORMAL, _ANOMALOUS, _REGIONS, _DEFECTS = range(HISTOGRAMS)
_LARGEST_SHIFT = 0.01
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


class PixelCurve(NamedTuple):
    """A curve over the false-positive rate; the area under it is a metric.

    Attributes:
        histogram: Index of the histogram; the height of the curve is its fraction above the threshold.
        limit: False-positive rate to integrate up to, in (0, 1]; the area is divided by it.
    """

    histogram: int
    limit: float


AUROC_CURVE = PixelCurve(_ANOMALOUS, 1.0)
AUPRO_CURVE = PixelCurve(_REGIONS, AUPRO_LIMIT)
SPRO_CURVES = tuple(PixelCurve(_DEFECTS, limit) for limit in SPRO_LIMITS)
CURVES = (AUROC_CURVE, AUPRO_CURVE, *SPRO_CURVES)


class PixelMetrics:
    """Accumulates the counts for the metrics, image by image.

    It takes 2 MiB. The small histograms for the intervals usually take under 16 KiB per image, at most 24 KiB for a
    normal and 96 KiB for an anomalous image (188 MiB for 2,000 of these). Merging shares them: count an image of many
    groups once, and merge it into the other groups. Images of a common unit share one, which bounds their memory.

    Sums of floats depend on their order. Instances that were filled with the same images in the same order, and merged
    in the same order, are equal to the last bit, in whatever processes they were filled.
    """

    def __init__(self) -> None:
        """Starts without pixels."""
        self._histograms = np.zeros((HISTOGRAMS, BINS))
        self._images: list[CoarseHistograms] = []
        self._units: dict[Hashable, CoarseHistograms] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The counts without empty bins: what another process sends is a few per cent of the histograms."""
        flat = self._histograms.ravel()
        index = np.flatnonzero(flat)
        return {"index": index.astype(np.uint32), "value": flat[index], "images": self._images, "units": self._units}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the histograms of `__getstate__`."""
        self._histograms = np.zeros((HISTOGRAMS, BINS))
        self._histograms.ravel()[state["index"]] = state["value"]
        self._images, self._units = state["images"], state["units"]

    def update(
        self,
        anomaly_map: np.ndarray,
        mask: np.ndarray,
        defects: Sequence[Defect] | None = None,
        inside: np.ndarray | None = None,
        unit: Hashable | None = None,
    ) -> None:
        """Counts the pixels of one image.

        Args:
            anomaly_map: Float, shape (h, w), finite, higher is more anomalous; resized to the mask and rounded to
                float16, see `map_bins`.
            mask: Bool, shape (H, W), true where the image is anomalous.
            defects: The defects for sPRO; together they cover the mask. By default, every connected component of the
                mask is a defect that saturates at its whole area, and sPRO equals PRO.
            inside: Bool, shape (H, W), true where pixels count; covers the mask. By default all pixels count.
            unit: Images of the same unit are drawn together in resamples; all of them are normal, or all anomalous. By
                default the image is a unit of its own.

        Raises:
            ValueError: A shape or dtype is wrong, a value is not finite as float16, or the defects together differ from
                the mask.
        """
        if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
            raise ValueError(f"the mask must be bool (H, W), not {mask.dtype} {mask.shape}")
        if defects is not None and not _cover(defects, mask):
            raise ValueError("the defects must have the shape of the mask and together cover exactly the mask")
        bins = map_bins(anomaly_map, mask.shape)
        every = np.bincount(bins.ravel() if inside is None else bins[inside], minlength=BINS)
        if mask.any():
            image = np.empty((HISTOGRAMS, BINS))
            inside = bins[mask]
            image[_ANOMALOUS] = np.bincount(inside, minlength=BINS)
            image[_NORMAL] = every - image[_ANOMALOUS]
            image[_REGIONS] = np.bincount(inside, weights=_region_shares(mask), minlength=BINS)
            image[_DEFECTS] = image[_REGIONS] if defects is None else _saturated_overlap(bins, defects)
        else:
            image = every[np.newaxis].astype(np.float64)
        self._histograms[: len(image)] += image
        coarse = coarsen(image)
        if unit is None:
            self._images.append(coarse)
        else:
            self._add(unit, coarse)

    def merge(self, other: PixelMetrics) -> None:
        """Adds the images counted by another instance; those of a unit of both are one unit."""
        self._histograms += other._histograms
        self._images += other._images
        for unit, coarse in other._units.items():
            self._add(unit, coarse)

    def _add(self, unit: Hashable, coarse: CoarseHistograms) -> None:
        known = self._units.get(unit)
        self._units[unit] = coarse if known is None else added(known, coarse)

    def auroc(self) -> float | None:
        """Area under the ROC curve of the pixels, in [0, 1].

        It is the probability that a random anomalous pixel scores above a random normal one; a tie counts half.

        Returns:
            The area; None without anomalous or without normal pixels.
        """
        return self.area(AUROC_CURVE)

    def aupro(self, limit: float = AUPRO_LIMIT) -> float | None:
        """Area under the per-region overlap, in [0, 1].

        The overlap is the fraction of a connected component of the mask (8 neighbours) above the threshold, averaged
        over the components of all images (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021).

        Args:
            limit: False-positive rate to integrate up to, in (0, 1]; the area is divided by it.

        Returns:
            The area; None without anomalous or without normal pixels.

        Raises:
            ValueError: The limit is out of range.
        """
        return self.area(PixelCurve(_REGIONS, limit))

    def spro(self, limit: float) -> float | None:
        """Area under the saturated per-region overlap, in [0, 1].

        The overlap is min(pixels of a defect above the threshold / its saturation area, 1), averaged over the defects
        of all images (Bergmann et al., "Beyond Dents and Scratches", IJCV 2022).

        Args:
            limit: False-positive rate to integrate up to, in (0, 1]; the area is divided by it.

        Returns:
            The area; None without anomalous or without normal pixels.

        Raises:
            ValueError: The limit is out of range.
        """
        return self.area(PixelCurve(_DEFECTS, limit))

    def area(self, curve: PixelCurve) -> float | None:
        """Area under a curve, in [0, 1]; None without anomalous or without normal pixels.

        Raises:
            ValueError: The limit is out of range.
        """
        area = float(_areas(self._histograms, [curve])[0])
        return None if np.isnan(area) else area

    def resampled(
        self, curves: Sequence[PixelCurve] = CURVES, *, resamples: int = RESAMPLES, seed: int = 0
    ) -> np.ndarray:
        """Areas of units drawn with replacement, normal and anomalous ones separately, for confidence intervals.

        They are computed on 4,096 bins, which keep 6 of the 10 fraction bits of a float16. They are then shifted by the
        difference between the exact area and the area on these bins.

        Args:
            curves: Curves whose areas are computed.
            resamples: Number of resamples, at least 1.
            seed: Seed of the resamples for a given number of units.

        Returns:
            float64, shape (resamples, curves); NaN where the area is undefined or the shift exceeds 0.01, which happens
            if the values lie too far from 0 for their spread.
        """
        exact = _areas(self._histograms, curves)
        if np.isnan(exact).any():
            return np.full((resamples, len(curves)), np.nan)
        shift = exact - _areas(merge_bins(self._histograms), curves)
        # If coarse bins cannot separate the scores, they do not show how the metric varies.
        shift[np.abs(shift) > _LARGEST_SHIFT] = np.nan
        units = [*self._images, *self._units.values()]
        resampled = [_areas(sums, curves) for sums in resampled_sums(units, resamples, seed)]
        return np.asarray(np.clip(np.concatenate(resampled) + shift, 0, 1))


def _cover(defects: Sequence[Defect], mask: np.ndarray) -> bool:
    joined = np.zeros_like(mask)
    for defect in defects:
        if defect.mask.shape != mask.shape:
            return False
        joined |= defect.mask
    return np.array_equal(joined, mask)


def _region_shares(mask: np.ndarray) -> np.ndarray:
    """For each pixel of the mask, in order, one divided by the area of its connected component."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels: np.ndarray = ndimage.label(box, structure=_EIGHT_NEIGHBOURS)[0][box]
    areas: np.ndarray = np.bincount(labels)[labels]
    return 1 / areas


def _saturated_overlap(bins: np.ndarray, defects: Sequence[Defect]) -> np.ndarray:
    """Sum over defects of the increments of the saturated overlap, in ascending bin order.

    As the threshold falls, the overlap of a defect with saturation area s grows by 1 / s with each of its s highest
    pixels, and not after them.
    """
    highest = []
    for defect in defects:
        inside = bins[defect.mask]
        left = inside.size - defect.saturation_area
        highest.append(np.partition(inside, left)[left:] if left else inside)
    weights = [np.full(found.size, 1 / found.size) for found in highest]
    return np.bincount(np.concatenate(highest), weights=np.concatenate(weights), minlength=BINS)


def _areas(histograms: np.ndarray, curves: Sequence[PixelCurve]) -> np.ndarray:
    """Areas under curves over the false-positive rate.

    Args:
        histograms: Float64, shape (..., HISTOGRAMS, bins), in ascending order of scores.
        curves: The height of each is the sum of its histogram from the highest score down, divided by the total.

    Returns:
        Float64, shape (..., curves); NaN where a total is 0.
    """
    for _, limit in curves:
        if not 0 < limit <= 1:
            raise ValueError(f"a limit must be in (0, 1], not {limit}")
    gained = histograms[..., ::-1]
    totals = gained.sum(axis=-1)
    before = np.cumsum(gained, axis=-1) - gained
    normal = gained[..., _NORMAL, :]
    areas: list[np.ndarray] = []
    for histogram, limit in curves:
        inside = np.clip(limit * totals[..., [_NORMAL]] - before[..., _NORMAL, :], 0, normal)
        share = np.divide(inside, normal, out=np.zeros_like(inside), where=normal > 0)
        height = before[..., histogram, :] + gained[..., histogram, :] * share / 2
        with np.errstate(invalid="ignore"):
            areas.append(np.sum(inside * height, axis=-1) / (limit * totals[..., _NORMAL] * totals[..., histogram]))
    stacked: np.ndarray = np.stack(areas, axis=-1)
    return stacked.clip(0, 1)
