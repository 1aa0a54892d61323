"""Scorer of an endpoint: a first verdict at once, and a second after a vision-language model has written captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniad_ray.errors import BundleError, ImageError
from uniad_ray.experts.base import Evidence
from uniad_ray.perception.base import Originals, Perception
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.gallery import PIXELS, Gallery, NearestNormal, describe
from uniad_ray.scoring.scorer import Scorer, Verdict


@dataclass(frozen=True)
class CaptionCompleter:
    """State of an image that waits for its texts.

    Attributes:
        perception: The single image with all fields that need no texts.
        evidence: Evidence of the experts that need no texts.
    """

    perception: Perception
    evidence: Mapping[str, Evidence]


@dataclass(frozen=True)
class FirstVerdict:
    """First result for one image, from the experts that need no texts.

    Attributes:
        verdict: Their verdict; None if they cannot be fused without the others.
        awaited: State for the verdict with texts; None if no expert needs texts.
        descriptor: Descriptor for the nearest normal images; None if the bundle has no gallery.
    """

    verdict: Verdict | ImageError | None
    awaited: CaptionCompleter | None
    descriptor: np.ndarray | None


class OnlineScorer:
    """Score in two stages, because a model that writes texts takes seconds and may be unavailable.

    If no expert needs texts, the first stage gives the verdict of `Scorer`, and there is no second.

    Attributes:
        full: Scorer with all selected experts.
        first: Scorer with the experts that need no texts; None if they cannot be fused without the others.
        awaiting: Names of the experts that need texts.
    """

    def __init__(self, full: Scorer, first: Scorer | None, gallery: Gallery | None) -> None:
        """Combine the parts; `build_online_scorer` builds them from a bundle.

        Args:
            full: Scorer with all experts.
            first: Scorer with the experts that need no texts, on the same networks.
            gallery: Normal images; None disables `nearest`.
        """
        self.full = full
        self.first = first
        names = () if first is None else first.expert_names
        self.awaiting = tuple(name for name in full.expert_names if name not in names)
        self._gallery = gallery
        late = frozenset(field for extractor in full.pipeline.awaiting_texts for field in extractor.provides)
        needs = [extractor.needs for extractor in full.pipeline.awaiting_texts]
        self._first_fields = full.wanted.union(*needs) - late
        self._texts = frozenset(field for extractor in full.pipeline.asking for field in extractor.provides)

    def begin(
        self, row_keys: Sequence[str], images: np.ndarray, originals: Originals | None = None
    ) -> list[FirstVerdict]:
        """Score images in order with the experts that need no texts, in batches of the configured size.

        Args:
            row_keys: Keys of the N images.
            images: uint8, shape (N, H, W, 3), RGB, at the size of the bundle.
            originals: The images before they were stretched, for captions.
        """
        found: list[FirstVerdict] = []
        step = self.full.config.batch_size
        for start in range(0, len(row_keys), step):
            found += self._begin_batch(row_keys[start : start + step], images[start : start + step], originals)
        return found

    def ask(self, awaited: CaptionCompleter) -> Perception:
        """Request the texts of one image without running an expert. Thread-safe.

        Raises:
            CaptionError: The model is unreachable.
        """
        perception = awaited.perception
        return self.full.pipeline.extend(perception, perception.names | self._texts)

    def finish(self, awaited: CaptionCompleter, perception: Perception) -> Verdict | ImageError:
        """Compute the verdict of all experts.

        Args:
            awaited: State of the image from `begin`.
            perception: Result of `ask`.
        """
        extended = self.full.pipeline.extend(perception, self.full.wanted)
        return self.full.verdicts(self.full.judge(extended, awaited.evidence), 1)[0]

    def nearest(self, descriptor: np.ndarray | None, most: int) -> list[NearestNormal]:
        """Return the most similar normal images, nearest first; an empty list without a gallery."""
        return [] if self._gallery is None or descriptor is None else self._gallery.nearest(descriptor, most)

    def _begin_batch(
        self, row_keys: Sequence[str], images: np.ndarray, originals: Originals | None
    ) -> list[FirstVerdict]:
        perception = self.full.pipeline.extract(row_keys, images, self._first_fields, originals=originals)
        evidence: dict[str, Evidence] = {}
        verdicts: list[Verdict | ImageError | None] = [None] * len(row_keys)
        if self.first is not None:
            evidence = self.first.judge(perception)
            verdicts = list(self.first.verdicts(evidence, len(row_keys)))
        return [
            FirstVerdict(
                verdict=verdict,
                awaited=None
                if not self.awaiting
                else CaptionCompleter(perception.row(row), {name: item.row(row) for name, item in evidence.items()}),
                descriptor=self._descriptor(perception, row),
            )
            for row, verdict in enumerate(verdicts)
        ]

    def _descriptor(self, perception: Perception, row: int) -> np.ndarray | None:
        if self._gallery is None:
            return None
        field = self._gallery.field
        return describe(perception, field, row) if field == PIXELS or field in perception.fields else None


def build_online_scorer(bundle: Bundle, *, device: str = "cpu") -> OnlineScorer:
    """Build the scorer of an endpoint from a bundle.

    Args:
        bundle: The bundle.
        device: Torch device.

    Raises:
        BundleError: The stored state does not match this version of the code.
        WeightsError: Weights are missing or differ from those of the fit.
    """
    full = bundle.scorer(device=device)
    late = {field for extractor in full.pipeline.awaiting_texts for field in extractor.provides}
    names = [name for name in full.expert_names if not full.needs_of(name) & late]
    first: Scorer | None = full
    if len(names) < len(full.expert_names):
        first = None
        if names:
            try:
                fusion, threshold = bundle.fusion(only=names)
            except BundleError:
                # The rule `maps` needs the maps of all experts, so there is no first verdict.
                pass
            else:
                first = full.restricted(names, fusion, threshold.value, bundle.review_threshold(names))
    return OnlineScorer(full, first, Gallery.from_files(bundle.files))
