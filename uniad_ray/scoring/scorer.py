"""The one scorer: extract, let the experts judge, calibrate, fuse. Night run, endpoint and plain loop all call it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    """What the scorer says of one image.

    Attributes:
        score: Fused score in deviations of held-out normal images; higher is more anomalous.
        threshold: An image is anomalous if its score is above this.
        raw: Each expert's score on its own scale.
        calibrated: Each expert's score in deviations of held-out normal images.
        anomaly_map: float32, shape (map_size, map_size), on the calibrated scale, or None where no expert localises.
        reasons: Sentences for people.
    """

    score: float
    threshold: float
    raw: Mapping[str, float]
    calibrated: Mapping[str, float]
    anomaly_map: np.ndarray | None
    reasons: tuple[str, ...]

    @property
    def is_anomalous(self) -> bool:
        """Whether the score is above the threshold."""
        return self.score > self.threshold

    @property
    def decision(self) -> str:
        """`anomalous` or `normal`."""
        return "anomalous" if self.is_anomalous else "normal"


class Scorer:
    """Scores images of one category; holds networks, fitted experts, their calibration and the threshold.

    Attributes:
        config: Configuration of the fit.
        threshold: An image is anomalous if its score is above this.
        pipeline: The networks, and what else extracts.
        wanted: Names of the fields that the experts need.
    """

    def __init__(
        self,
        config: FitConfig,
        pipeline: PerceptionPipeline,
        experts: Mapping[str, Expert],
        fusion: Fusion,
        threshold: float,
    ) -> None:
        """Puts the parts together; `Bundle.scorer` does it from a stored bundle."""
        self.config = config
        self.threshold = threshold
        self.pipeline = pipeline
        self._experts = dict(experts)
        self._fusion = fusion
        self.wanted = frozenset(field for expert in experts.values() for field in expert.needs)

    @property
    def expert_names(self) -> tuple[str, ...]:
        """Names of the experts that take part, in the order of the expert set."""
        return tuple(self._experts)

    def needs_of(self, name: str) -> frozenset[str]:
        """Names of the fields that one expert needs."""
        return self._experts[name].needs

    def restricted(self, names: Collection[str], fusion: Fusion, threshold: float) -> Scorer:
        """A scorer of some of the experts, with the same networks and banks in memory.

        Args:
            names: Experts that take part.
            fusion: How they are fused.
            threshold: An image is anomalous if its score is above this.
        """
        experts = {name: expert for name, expert in self._experts.items() if name in names}
        return Scorer(self.config, self.pipeline, experts, fusion, threshold)

    def evidence(
        self, row_keys: Sequence[str], images: np.ndarray, stored: StoredFields | None = None
    ) -> dict[str, Evidence]:
        """Every expert's evidence of one batch, before calibration.

        Args:
            row_keys: N keys.
            images: uint8, shape (N, input_size, input_size, 3), RGB.
            stored: Fields of `pipeline` that need not be computed.
        """
        return self.judge(self.pipeline.extract(row_keys, images, self.wanted, stored))

    def judge(self, perception: Perception, known: Mapping[str, Evidence] | None = None) -> dict[str, Evidence]:
        """Every expert's evidence of one batch that has been extracted.

        Args:
            perception: At least the fields in `wanted` of the experts that are not known.
            known: Evidence of some experts that is there already.
        """
        there = known or {}
        return {
            name: there[name] if name in there else expert.score(perception) for name, expert in self._experts.items()
        }

    def verdicts(self, evidence: Mapping[str, Evidence], count: int) -> list[Verdict | ImageError]:
        """What follows from the evidence of a batch.

        Args:
            evidence: Of every expert, as `judge` gives it.
            count: Images of the batch.
        """
        fused = self._fusion.fuse(evidence)
        return [self._verdict(evidence, fused, index) for index in range(count)]

    def time_stages(self, images: Iterable[tuple[str, np.ndarray]]) -> StageTimes:
        """Takes the time of every extractor and expert, see `stage_times.time_stages`."""
        return time_stages(self.pipeline, self._experts, images)

    def score(
        self, row_keys: Sequence[str], images: np.ndarray, stored: StoredFields | None = None
    ) -> list[Verdict | ImageError]:
        """Scores images in batches of the configured size, in order.

        Args:
            row_keys: N keys.
            images: uint8, shape (N, input_size, input_size, 3), RGB.
            stored: Fields of `pipeline` that need not be computed.

        Returns:
            N verdicts; an image whose score is not finite gets an error of kind `not_scorable` instead, since no
            comparison with a threshold would be true of it.
        """
        verdicts: list[Verdict | ImageError] = []
        step = self.config.batch_size
        for start in range(0, len(row_keys), step):
            verdicts += self._score_batch(row_keys[start : start + step], images[start : start + step], stored)
        return verdicts

    def score_encoded(
        self, row_keys: Sequence[str], encoded: Sequence[bytes], limits: ImageLimits | None = None
    ) -> list[Verdict | ImageError]:
        """Decodes and scores image files; a bad image gives its error in its place and touches no other."""
        images, errors = decode_batch(encoded, self.config.input_size, limits or ImageLimits())
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
        )
