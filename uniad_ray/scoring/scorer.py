"""The scorer of one category, shared by night runs, endpoints and Python loops: extract, score, calibrate, fuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from uniad_ray.archive.images import ImageLimits, decode_batch
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import BundleError, ImageError
from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.perception.base import Originals, Perception, StoredFields
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.complete import rows_by_left_out, score_complete
from uniad_ray.scoring.fusion import Fused, Fusion, merge_reasons
from uniad_ray.scoring.stage_times import NetworkCosts, StageTimes, network_costs, time_stages


@dataclass(frozen=True)
class Verdict:
    """Result of the scorer for one image.

    Attributes:
        score: Fused score in deviations of held-out normal images; higher is more anomalous.
        threshold: An image is anomalous if its score is above this.
        raw: Each expert's score on its own scale.
        calibrated: Each expert's score in deviations of held-out normal images.
        anomaly_map: float32, square, with the side of the largest map of an expert, on the calibrated scale; None if
            no expert gives maps.
        reasons: Explanations in sentences.
        left_out: Why experts have no part in the score, by expert; the threshold is that of the others.
        review_threshold: An image above this, but not above the threshold, is for review; None without review.
    """

    score: float
    threshold: float
    raw: Mapping[str, float]
    calibrated: Mapping[str, float]
    anomaly_map: np.ndarray | None
    reasons: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
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


FusionOf = Callable[[Collection[str]], tuple[Fusion, float]]
"""Returns fusion and threshold of some experts of a bundle; raises BundleError if they cannot be fused alone."""


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
        *,
        fusion_of: FusionOf | None = None,
    ) -> None:
        """Combine the parts; `Bundle.scorer` builds them from a stored bundle.

        Args:
            config: Configuration of the fit.
            pipeline: The extractors.
            experts: The experts by name.
            fusion: Their fusion.
            threshold: An image is anomalous if its score is above this.
            review_threshold: An image above this, but not above the threshold, is for review; None without review.
            fusion_of: Fusion and threshold of some of the experts, for images that lack a field of the others; None
                gives these images no score.
        """
        self.config = config
        self.threshold = threshold
        self.review_threshold = review_threshold
        self.pipeline = pipeline
        self._experts = dict(experts)
        self._fusion = fusion
        self._fusion_of = fusion_of
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
        return Scorer(
            self.config, self.pipeline, experts, fusion, threshold, review_threshold, fusion_of=self._fusion_of
        )

    def evidence(
        self,
        row_keys: Sequence[str],
        images: np.ndarray,
        stored: StoredFields | None = None,
        originals: Originals | None = None,
    ) -> dict[str, Evidence]:
        """Extract one batch and return the evidence of every expert, before calibration.

        Args:
            row_keys: Keys of the N images.
            images: uint8, shape (N, H, W, 3), RGB, at `config.decoded_size`.
            stored: Fields of `pipeline` that need not be computed.
            originals: The images before they were stretched, for captions.
        """
        return self.judge(self.pipeline.extract(row_keys, images, self.wanted, stored, originals))

    def judge(self, perception: Perception, known: Mapping[str, Evidence] | None = None) -> dict[str, Evidence]:
        """Return the evidence of every expert for one extracted batch.

        Args:
            perception: The batch with the fields needed by the experts that are not in `known`.
            known: Evidence by expert that need not be computed.
        """
        there = known or {}
        return {
            name: there[name] if name in there else score_complete(expert, perception)
            for name, expert in self._experts.items()
        }

    def verdicts(self, evidence: Mapping[str, Evidence], count: int) -> list[Verdict | ImageError]:
        """Fuse the evidence of a batch into verdicts.

        Args:
            evidence: Evidence of every expert, from `judge`.
            count: Number of images in the batch.
        """
        groups = rows_by_left_out(evidence, count)
        if list(groups) == [()]:
            fused = self._fusion.fuse(evidence, self.pipeline.region)
            return [self._verdict(evidence, fused, index, self.threshold) for index in range(count)]
        found: dict[int, Verdict | ImageError] = {}
        for absent, rows in groups.items():
            found.update(zip(rows, self._verdicts_without(absent, evidence, rows), strict=True))
        return [found[row] for row in range(count)]

    def time_stages(self, images: Iterable[tuple[str, np.ndarray]]) -> StageTimes:
        """Measure the time of every extractor and expert; see `stage_times.time_stages`."""
        return time_stages(self.pipeline, self._experts, images)

    def network_costs(self, row_key: str, image: np.ndarray) -> NetworkCosts:
        """Count parameters and operations of every extractor and expert; see `stage_times.network_costs`."""
        return network_costs(self.pipeline, self._experts, row_key, image)

    def score(
        self,
        row_keys: Sequence[str],
        images: np.ndarray,
        stored: StoredFields | None = None,
        originals: Originals | None = None,
    ) -> list[Verdict | ImageError]:
        """Score images in order, in batches of the configured size.

        Args:
            row_keys: Keys of the N images.
            images: uint8, shape (N, H, W, 3), RGB, at `config.decoded_size`.
            stored: Fields of `pipeline` that need not be computed.
            originals: The images before they were stretched, for captions.

        Returns:
            N verdicts. An image with a non-finite score gets an error of kind `not_scorable` instead, because it cannot
            be compared with the threshold. An image that lacks a text gets the verdict of the experts that need none,
            or an error of kind `no_text` if they cannot be fused alone.
        """
        verdicts: list[Verdict | ImageError] = []
        step = self.config.batch_size
        for start in range(0, len(row_keys), step):
            keys = row_keys[start : start + step]
            verdicts += self.verdicts(self.evidence(keys, images[start : start + step], stored, originals), len(keys))
        return verdicts

    def score_encoded(
        self, row_keys: Sequence[str], encoded: Sequence[bytes], limits: ImageLimits | None = None
    ) -> list[Verdict | ImageError]:
        """Decode and score image files. A bad file gives an error in its place and does not affect the others."""
        images, errors = decode_batch(
            encoded, self.config.decoded_size, limits or ImageLimits(), self.config.value_range
        )
        good = [index for index in range(len(encoded)) if index not in errors]
        originals = {row_keys[index]: encoded[index] for index in good}
        verdicts = self.score([row_keys[index] for index in good], images, originals=originals)
        results: dict[int, Verdict | ImageError] = {**errors, **dict(zip(good, verdicts, strict=True))}
        return [results[index] for index in range(len(encoded))]

    def _verdicts_without(
        self, absent: Sequence[str], evidence: Mapping[str, Evidence], rows: Sequence[int]
    ) -> list[Verdict | ImageError]:
        """Fuse the evidence of some rows without some experts, as an endpoint does without captions."""
        present = {name: item.select(rows) for name, item in evidence.items() if name not in absent}
        reasons = [{name: evidence[name].left_out[row] for name in absent} for row in rows]
        fusion, threshold, why = self._fusion, self.threshold, "no other expert can score it"
        if absent and present and self._fusion_of is not None:
            try:
                fusion, threshold = self._fusion_of(tuple(present))
            except BundleError as error:
                present, why = {}, str(error)
        elif absent:
            present = {}
        if not present:
            return [ImageError("no_text", f"{next(iter(own.values()))}; {why}") for own in reasons]
        fused = fusion.fuse(present, self.pipeline.region)
        verdicts = [self._verdict(present, fused, index, threshold) for index in range(len(rows))]
        return [
            replace(verdict, left_out=own) if own and isinstance(verdict, Verdict) else verdict
            for verdict, own in zip(verdicts, reasons, strict=True)
        ]

    def _verdict(
        self, evidence: Mapping[str, Evidence], fused: Fused, index: int, threshold: float
    ) -> Verdict | ImageError:
        if not np.isfinite(fused.scores[index]):
            broken = [name for name, values in fused.calibrated.items() if not np.isfinite(values[index])]
            return ImageError("not_scorable", f"no finite score from {', '.join(broken) or 'the fusion'}")
        return Verdict(
            score=float(fused.scores[index]),
            threshold=threshold,
            raw={name: float(item.scores[index]) for name, item in evidence.items()},
            calibrated={name: float(values[index]) for name, values in fused.calibrated.items()},
            anomaly_map=None if fused.maps is None else fused.maps[index],
            reasons=tuple(merge_reasons(evidence, fused.calibrated, index)),
            # The review threshold keeps its distance from the threshold of the experts that take part.
            review_threshold=None
            if self.review_threshold is None
            else self.review_threshold + threshold - self.threshold,
        )
