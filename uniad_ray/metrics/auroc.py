"""Area under the ROC curve, of image scores and, in bounded memory, of every pixel of a test set.

The area is the chance that a random anomalous item scores above a random normal one, a tie counting half (Hanley and
McNeil 1982, "The meaning and use of the area under a receiver operating characteristic (ROC) curve", Radiology 143).
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

_BINS = 2**16
_SIGN = np.uint16(2**15)


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """AUROC over images.

    Args:
        labels: Shape (N,), bool or 0 and 1; true is anomalous.
        scores: Shape (N,), finite, higher is more anomalous.

    Returns:
        A value in [0, 1], or None where only one class is there, for which the area is not defined.

    Raises:
        ValueError: The shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be two vectors of one length")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    anomalous = labels.astype(bool)
    if anomalous.all() or not anomalous.any():
        return None
    return float(roc_auc_score(anomalous, scores))


class PixelAuroc:
    """AUROC over the pixels of many images, each seen once.

    Every pixel is one of the 65,536 float16 values, so two histograms of 65,536 counts (1 MiB) hold all that the area
    depends on: the result is exact for the float16 maps, whatever the number of pixels and their order.
    """

    def __init__(self) -> None:
        """Starts without pixels."""
        self._anomalous = np.zeros(_BINS, np.int64)
        self._normal = np.zeros(_BINS, np.int64)

    def update(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        """Counts the pixels of one image.

        Args:
            anomaly_map: Float, shape (h, w), finite, higher is more anomalous. It is resized to the mask (PIL,
                bilinear, pixel centres at halves; smoothed where it shrinks), in float32, and rounded to float16.
            mask: Bool, shape (H, W), true where the image is anomalous.

        Raises:
            ValueError: A shape or dtype is another one, or a value is not finite as float16.
        """
        if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
            raise ValueError(f"the mask must be bool (H, W), not {mask.dtype} {mask.shape}")
        if anomaly_map.ndim != 2 or not np.issubdtype(anomaly_map.dtype, np.floating) or anomaly_map.size == 0:
            raise ValueError(f"the map must be float (h, w), not {anomaly_map.dtype} {anomaly_map.shape}")
        bins = _ordered_bins(_resize(anomaly_map, mask.shape))
        self._anomalous += np.bincount(bins[mask], minlength=_BINS)
        self._normal += np.bincount(bins[~mask], minlength=_BINS)

    def merge(self, other: PixelAuroc) -> None:
        """Adds the pixels that another one counted."""
        self._anomalous += other._anomalous
        self._normal += other._normal

    def compute(self) -> float | None:
        """The area, in [0, 1]; None where no anomalous or no normal pixel was counted."""
        anomalous, normal = int(self._anomalous.sum()), int(self._normal.sum())
        if anomalous == 0 or normal == 0:
            return None
        below = np.cumsum(self._normal) - self._normal
        occupied = np.flatnonzero(self._anomalous)
        # Python's integers, because the number of pairs outgrows 64 bits; halves are avoided by counting twice.
        twice = sum(
            count * (2 * lower + ties)
            for count, lower, ties in zip(
                self._anomalous[occupied].tolist(),
                below[occupied].tolist(),
                self._normal[occupied].tolist(),
                strict=True,
            )
        )
        return float(twice / (2 * anomalous * normal))


def _resize(anomaly_map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The map at the size of the mask, as float16."""
    with np.errstate(over="ignore"):
        resized = anomaly_map.astype(np.float32)
        if resized.shape != shape:
            height, width = shape
            resized = np.asarray(Image.fromarray(resized).resize((width, height), Image.Resampling.BILINEAR))
        rounded = resized.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise ValueError("the map must be finite, and within the range of float16 (65504)")
    return rounded


def _ordered_bins(values: np.ndarray) -> np.ndarray:
    """uint16 that sort as the float16 do; the two zeros share a bin."""
    # Adding zero turns -0.0 into +0.0.
    bits = (values + np.float16(0)).view(np.uint16)
    # Sign and magnitude to an offset: negative values in reverse order below the positive ones.
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)
