"""The scorer of one category, shared by night runs, endpoints and Python loops: extract, score, calibrate, fuse."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from uniad_ray.archive.images import ImageLimits, decode_batch
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ImageError
from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.perception.base import Perception, StoredFields
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.fusion import Fused, Fusion, merge_reasons
from uniad_ray.scoring.stage_times import StageTimes, time_stages


@dataclass(frozen=True)
class Verdict:
    """Result of the scorer for one image.

    Attributes:
        score: Fused score in deviations of held-out normal images; higher is more anomalous.
        threshold: An image is anomalous if its score is above this.
        raw: Each expert's score on its own scale.
        calibrated: Each expert's score in deviations of held-out normal images.
        anomaly_map: float32, shape (map_size, map_size), on the calibrated scale, or None if no expert gives maps.
        reasons: Explanations in sentences.
        review_threshold: An image above this, but not above the threshold, is for review; None without review.
    """

    score: float
    threshold: float
    raw: Mapping[str, float]
    calibrated: Mapping[str, float]
    anomaly_map: np.ndarray | None
    reasons: tuple[str, ...]
    review_threshold: float | None = field(default=None, kw_only=True)

    @property
    def is_anomalous(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold

    @property
    def decision(self) -> Literal["normal", "review", "anomalous"]:
        """`anomalous` above the threshold, `review` above the review threshold only, otherwise `normal`."""
        if self.is_anomalous:
            return "anomalous"
        is_doubtful = self.review_threshold is not None and self.score > self.review_threshold
        return "review" if is_doubtful else "normal"


class Scorer:
    """Score images of one category with networks, fitted experts, calibration and threshold.

    Attributes:
        config: Configuration of the fit.
        threshold: An image is anomalous if its score is above this.
        review_threshold: An image above this, but not above the threshold, is for review; None without review.
        pipeline: The extractors.
        wanted: Names of the fields that the experts need.
    """

    def __init__(
        self,
        config: FitConfig,
        pipeline: PerceptionPipeline,
        experts: Mapping[str, Expert],
        fusion: Fusion,
        threshold: float,
        review_threshold: float | None = None,
    ) -> None:
        """Combine the parts; `Bundle.scorer` builds them from a stored bundle."""
        self.config = config
        self.threshold = threshold
        self.review_threshold = review_threshold
        self.pipeline = pipeline
        self._experts = dict(experts)
        self._fusion = fusion
        self.wanted = frozenset(field for expert in experts.values() for field in expert.needs)

    @property
    def expert_names(self) -> tuple[str, ...]:
        """Names of the selected experts in the order of the expert set."""
        return tuple(self._experts)

    def needs_of(self, name: str) -> frozenset[str]:
        """Return the names of the fields that one expert needs."""
        return self._experts[name].needs

    def restricted(
        self, names: Collection[str], fusion: Fusion, threshold: float, review_threshold: float | None = None
    ) -> Scorer:
        """Return a scorer of some of the experts that shares networks and memory banks.

        Args:
            names: Experts to fuse.
            fusion: Fusion of these experts.
            threshold: An image is anomalous if its score is above this.
            review_threshold: An image above this, but not above the threshold, is for review.
        """
        experts = {name: expert for name, expert in self._experts.items() if name in names}
        return Scorer(self.config, self.pipeline, experts, fusion, threshold, review_threshold)

    def evidence(
        self, row_keys: Sequence[str], images: np.ndarray, stored: StoredFields | None = None
    ) -> dict[str, Evidence]:
        """Extract one batch and return the evidence of every expert, before calibration.

        Args:
            row_keys: Keys of the N images.
            images: uint8, shape (N, H, W, 3), RGB, at `config.decoded_size`.
            stored: Fields of `pipeline` that need not be computed.
        """
        return self.judge(self.pipeline.extract(row_keys, images, self.wanted, stored))

    def judge(self, perception: Perception, known: Mapping[str, Evidence] | None = None) -> dict[str, Evidence]:
        """Return the evidence of every expert for one extracted batch.

        Args:
            perception: The batch with the fields needed by the experts that are not in `known`.
            known: Evidence by expert that need not be computed.
        """
        there = known or {}
        return {
            name: there[name] if name in there else expert.score(perception) for name, expert in self._experts.items()
        }

    def verdicts(self, evidence: Mapping[str, Evidence], count: int) -> list[Verdict | ImageError]:
        """Fuse the evidence of a batch into verdicts.

        Args:
            evidence: Evidence of every expert, from `judge`.
            count: Number of images in the batch.
        """
        fused = self._fusion.fuse(evidence)
        return [self._verdict(evidence, fused, index) for index in range(count)]

    def time_stages(self, images: Iterable[tuple[str, np.ndarray]]) -> StageTimes:
        """Measure the time of every extractor and expert; see `stage_times.time_stages`."""
        return time_stages(self.pipeline, self._experts, images)

    def score(
        self, row_keys: Sequence[str], images: np.ndarray, stored: StoredFields | None = None
    ) -> list[Verdict | ImageError]:
        """Score images in order, in batches of the configured size.

        Args:
            row_keys: Keys of the N images.
            images: uint8, shape (N, H, W, 3), RGB, at `config.decoded_size`.
            stored: Fields of `pipeline` that need not be computed.

        Returns:
            N verdicts. An image with a non-finite score gets an error of kind `not_scorable` instead, because it cannot
            be compared with the threshold.
        """
        verdicts: list[Verdict | ImageError] = []
        step = self.config.batch_size
        for start in range(0, len(row_keys), step):
            verdicts += self._score_batch(row_keys[start : start + step], images[start : start + step], stored)
        return verdicts

    def score_encoded(
        self, row_keys: Sequence[str], encoded: Sequence[bytes], limits: ImageLimits | None = None
    ) -> list[Verdict | ImageError]:
        """Decode and score image files. A bad file gives an error in its place and does not affect the others."""
        images, errors = decode_batch(encoded, self.config.decoded_size, limits or ImageLimits())
        good = [index for index in range(len(encoded)) if index not in errors]
        verdicts = self.score([row_keys[index] for index in good], images)
        results: dict[int, Verdict | ImageError] = {**errors, **dict(zip(good, verdicts, strict=True))}
        return [results[index] for index in range(len(encoded))]

    def _score_batch(
        self, row_keys: Sequence[str], images: np.ndarray, stored: StoredFields | None
    ) -> list[Verdict | ImageError]:
        return self.verdicts(self.evidence(row_keys, images, stored), len(row_keys))

    def _verdict(self, evidence: Mapping[str, Evidence], fused: Fused, index: int) -> Verdict | ImageError:
        if not np.isfinite(fused.scores[index]):
            broken = [name for name, values in fused.calibrated.items() if not np.isfinite(values[index])]
            return ImageError("not_scorable", f"no finite score from {', '.join(broken) or 'the fusion'}")
        return Verdict(
            score=float(fused.scores[index]),
            threshold=self.threshold,
            raw={name: float(item.scores[index]) for name, item in evidence.items()},
            calibrated={name: float(values[index]) for name, values in fused.calibrated.items()},
            anomaly_map=None if fused.maps is None else fused.maps[index],
            reasons=tuple(merge_reasons(evidence, fused.calibrated, index)),
            review_threshold=self.review_threshold,
        )
