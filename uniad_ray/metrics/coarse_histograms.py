"""Small histograms of single images, for drawing images many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from uniad_ray.metrics.bootstrap import draw_counts, stratified_draws

COARSE_BINS = 4096
"""Number of bins in a small histogram, which keeps 6 of the 10 fraction bits of a float16."""

HISTOGRAMS = 4
"""Number of histograms per image; the first is that of its normal pixels."""

_RESAMPLES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class CoarseHistograms:
    """The concatenated histograms of one image, or of several, without empty bins: 6 bytes per occupied bin.

    Attributes:
        index: uint16, ascending: histogram index times `COARSE_BINS` plus bin index.
        value: float32, contents of the bin.
    """

    index: np.ndarray
    value: np.ndarray

    @property
    def is_anomalous(self) -> bool:
        """Whether the image has any anomalous pixels."""
        return bool(self.index[-1] >= COARSE_BINS)


def merge_bins(histograms: np.ndarray) -> np.ndarray:
    """Sums neighbouring bins until `COARSE_BINS` remain.

    Args:
        histograms: Shape (histograms, bins).

    Returns:
        Shape (histograms, COARSE_BINS).
    """
    merged: np.ndarray = histograms.reshape(len(histograms), COARSE_BINS, -1).sum(axis=-1)
    return merged


def coarsen(histograms: np.ndarray) -> CoarseHistograms:
    """Creates the small histograms of one image.

    Args:
        histograms: Shape (up to `HISTOGRAMS`, bins); omitted ones are empty.
    """
    merged = merge_bins(histograms).ravel()
    index = np.flatnonzero(merged)
    return CoarseHistograms(index.astype(np.uint16), merged[index].astype(np.float32))


def added(first: CoarseHistograms, second: CoarseHistograms) -> CoarseHistograms:
    """Sums two, which are both normal or both anomalous; in float32, so exact up to 2**24 pixels a bin."""
    index, place = np.unique(np.concatenate([first.index, second.index]), return_inverse=True)
    value = np.bincount(place, weights=np.concatenate([first.value, second.value]), minlength=index.size)
    return CoarseHistograms(index, value.astype(np.float32))


def resampled_sums(images: Sequence[CoarseHistograms], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums histograms over images drawn with replacement, normal and anomalous images separately.

    Args:
        images: At least one image.
        resamples: Total number of resamples.
        seed: Seed of the draws.

    Yields:
        float64, shape (some resamples, HISTOGRAMS, bins occupied in any image).
    """
    index = np.concatenate([image.index for image in images])
    number, bins = np.divmod(index.astype(np.int32), COARSE_BINS)
    occupied = np.bincount(bins, minlength=COARSE_BINS) > 0
    kept = np.count_nonzero(occupied)
    column = number * kept + (np.cumsum(occupied) - 1)[bins]
    starts = np.cumsum([0, *(image.index.size for image in images)])
    value = np.concatenate([image.value for image in images])
    every = sparse.csr_array((value, column, starts), shape=(len(images), HISTOGRAMS * kept))
    anomalous = np.array([image.is_anomalous for image in images])
    classes = (every[~anomalous], every[anomalous])
    sizes = [histograms.shape[0] for histograms in classes]
    for draws in stratified_draws(sizes, resamples, seed, at_once=_RESAMPLES_AT_ONCE):
        sums = sum(
            draw_counts(drawn, size).astype(np.float32) @ histograms
            for drawn, size, histograms in zip(draws, sizes, classes, strict=True)
        )
        yield np.asarray(sums, np.float64).reshape(-1, HISTOGRAMS, kept)
