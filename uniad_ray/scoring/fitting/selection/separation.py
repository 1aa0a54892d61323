"""How well scores separate anomalies from normal images, and how sure a difference is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from uniad_ray.metrics.image import image_auroc
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.fitting.selection.known_defects import KNOWN
from uniad_ray.scoring.fitting.synthetic.kinds import family_of

Families = Collection[Collection[str]]
"""Groups of families of anomalies. Groups count equally, and so do the families of a group."""
_RESAMPLES: Final = 400
_SURE: Final = 0.95


@dataclass(frozen=True)
class Separation:
    """Scores of normal images and of anomalies.

    Attributes:
        normal: Shape (N,), finite.
        anomalies: Scores by kind, each of shape (A,); an anomaly with a non-finite score counts as detected.
    """

    normal: FloatArray
    anomalies: Mapping[str, FloatArray]

    def aurocs(self) -> dict[str, float]:
        """Mean AUROC over the kinds of each family."""
        found: dict[str, list[float]] = {}
        for kind, scores in self.anomalies.items():
            value = anomaly_auroc(self.normal, scores)
            if value is not None:
                found.setdefault(_family(kind), []).append(value)
        return {family: float(np.mean(values)) for family, values in found.items()}

    def lowest_gain(self, other: Separation, families: Families) -> float:
        """The gain of `mean_auroc` over another separation of the same images that is reached with 95 % certainty.

        Normal images and anomalies are drawn with replacement, the same for both (paired bootstrap).

        Args:
            other: The separation to compare with.
            families: The families that count.
        """
        rng = np.random.default_rng(0)
        normal = _draws(rng, len(self.normal))
        by_family: dict[str, list[np.ndarray]] = {}
        for kind, scores in self.anomalies.items():
            anomalous = _draws(rng, len(scores))
            gain = _resampled(self, kind, normal, anomalous) - _resampled(other, kind, normal, anomalous)
            by_family.setdefault(_family(kind), []).append(gain)
        means = {family: np.mean(gains, axis=0) for family, gains in by_family.items()}
        groups = [[value for family, value in means.items() if family in group] for group in families]
        if not any(groups):
            return 0.0
        return float(np.quantile(np.mean([np.mean(group, axis=0) for group in groups if group], axis=0), 1.0 - _SURE))


def anomaly_auroc(normal: FloatArray, scores: FloatArray) -> float | None:
    """AUROC of anomalies against normal images; a non-finite score counts as detected; None without anomalies."""
    is_known = np.isfinite(scores)
    highest = scores[is_known].max(initial=normal.max())
    both = np.concatenate([normal, np.where(is_known, scores, highest + 1.0)])
    return image_auroc(np.repeat([0, 1], [len(normal), len(scores)]), both)


def mean_auroc(aurocs: Mapping[str, float], families: Families) -> float:
    """Mean over groups of the mean over their families; 0.5 (chance) if there are no anomalies of these families."""
    groups = [[value for family, value in aurocs.items() if family in group] for group in families]
    means = [float(np.mean(values)) for values in groups if values]
    return float(np.mean(means)) if means else 0.5


def _family(kind: str) -> str:
    return kind if kind.startswith(KNOWN) else family_of(kind)


def _draws(rng: np.random.Generator, count: int) -> np.ndarray:
    """How often each of some images is drawn: float64, shape (resamples, count), each row with sum 1."""
    return rng.multinomial(count, np.full(count, 1.0 / count), size=_RESAMPLES) / count


def _resampled(separation: Separation, kind: str, normal: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """AUROC of one kind in each resample: float64, shape (resamples,)."""
    scores = separation.anomalies[kind][:, None]
    is_ordered = np.where(np.isfinite(scores), (scores > separation.normal) + 0.5 * (scores == separation.normal), 1.0)
    return np.asarray(((anomalous @ is_ordered) * normal).sum(axis=1))
