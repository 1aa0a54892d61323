"""A fitted model in the calling process: load a bundle and score images, without Ray."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from uniad_ray import __version__
from uniad_ray.archive.image_size import fitted_size
from uniad_ray.archive.images import DEFAULT_LIMITS
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError, UniadRayError, UserError
from uniad_ray.pipelines.cluster.devices import choose_device
from uniad_ray.reporting.drawing.pictures import map_scale, overlay
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.image_sources import ImageSource, LoadedImage, load_image
from uniad_ray.scoring.scorer import Scorer
from uniad_ray.scoring.scorer import Verdict as ScoredVerdict

__all__ = ["ImageSource", "Model", "Verdict", "load_model"]


@dataclass(frozen=True, eq=False, repr=False)
class Verdict(ScoredVerdict):
    """The result for one image.

    Scores are in deviations of held-out normal images; higher is more anomalous. Two verdicts are equal only if they
    are the same object, since they hold arrays.

    Attributes:
        score: Fused score of all experts.
        threshold: An image is anomalous if its score is above this.
        raw: Score of each expert on its own scale, by name.
        calibrated: Score of each expert in deviations of held-out normal images, by name.
        anomaly_map: float32, square, with the side of the largest map of an expert, in deviations as well; it covers
            the whole image. None if no expert localises.
        reasons: Sentences for people, most important first; may be empty.
        review_threshold: An image above this, but not above the threshold, is for review; None without review.
        category: Category of the model.
        bundle_version: Version of the model's bundle.
        bundle_digest: sha256 of the bundle's manifest.
        pixels: The image at the size of its category, as it was scored: uint8, shape (H, W, 3), RGB.
        image_size: Height and width of the image itself, pixels.
        value_range: Values of 16-bit images that become black and white in `pixels`; None without a range.

    >>> import uniad_ray as ur
    >>> verdict = ur.load_model("bundles", "trays").score("damaged.png")
    >>> verdict.decision
    'anomalous'
    >>> verdict.score > verdict.threshold
    True
    >>> list(verdict.calibrated)
    ['patch']
    >>> verdict.anomaly_map.shape
    (16, 16)
    >>> verdict.overlay().save("overlay.png")
    >>> sorted(verdict.to_dict())
    ['decision', 'experts', 'left_out', 'lineage', 'reasons', 'review_threshold', 'score', 'threshold']
    """

    category: str = field(kw_only=True)
    bundle_version: str = field(kw_only=True)
    bundle_digest: str = field(kw_only=True)
    pixels: np.ndarray = field(kw_only=True)
    image_size: tuple[int, int] = field(kw_only=True)
    value_range: tuple[int, int] | None = field(default=None, kw_only=True)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        """Decision, scores and reasons in one line, without the arrays."""
        found = f"decision={self.decision!r}, score={self.score:.4g}, threshold={self.threshold:.4g}"
        return f"Verdict({found}, reasons={self.reasons!r})"

    def overlay(self, image: ImageSource | None = None) -> Image.Image:
        """Draws the anomaly map over the image, in the colours of the reports.

        Colours depend only on the threshold, so overlays of one model are comparable.

        Args:
            image: Image to draw on, at its own size; default is `pixels` with the aspect ratio of the image itself.

        Returns:
            An RGB image. Without a map it is the image itself.

        Raises:
            ImageError: `image` cannot be decoded.
            StoreError: `image` cannot be read.
        """
        if image is None:
            height, width = fitted_size(self.image_size, max(self.pixels.shape[:2]))
            seen = Image.fromarray(self.pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(seen)
        else:
            pixels = load_image(image, value_range=self.value_range).pixels
        return overlay(pixels, self.anomaly_map, map_scale(np.empty(0), self.threshold))

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON types, with the keys of the endpoint's response; without the map and the pixels."""
        return {
            "decision": self.decision,
            "score": self.score,
            "threshold": self.threshold,
            "review_threshold": self.review_threshold,
            "experts": [
                {"expert": name, "raw": raw, "calibrated": self.calibrated[name]} for name, raw in self.raw.items()
            ],
            "reasons": list(self.reasons),
            "left_out": [{"expert": name, "reason": reason} for name, reason in self.left_out.items()],
            "lineage": {
                "category": self.category,
                "bundle_version": self.bundle_version,
                "bundle_digest": self.bundle_digest,
                "code_version": __version__,
            },
        }


class Model:
    """A fitted model of one category, loaded by `load_model`.

    It gives the verdicts of the night run and of the endpoint. Use it from one thread at a time.

    Attributes:
        category: Category that it scores.
        version: Version of its bundle.
        digest: sha256 of the bundle's manifest.
        device: `cpu` or `cuda`.

    >>> import uniad_ray as ur
    >>> model = ur.load_model("bundles", "trays", device="cpu")
    >>> model.experts
    ('patch',)
    >>> model.score("good.png").decision
    'normal'
    >>> [verdict.decision for verdict in model.score_many(["good.png", "damaged.png"])]
    ['normal', 'anomalous']
    """

    def __init__(self, manifest: BundleManifest, scorer: Scorer, device: str) -> None:
        """Joins a bundle's manifest and its scorer."""
        self.category = manifest.category
        self.version = manifest.version
        self.digest = manifest.digest
        self.device = device
        self._scorer = scorer

    def __repr__(self) -> str:
        """Category, version and device."""
        return f"Model(category={self.category!r}, version={self.version!r}, device={self.device!r})"

    @property
    def threshold(self) -> float:
        """An image is anomalous if its score is above this."""
        return self._scorer.threshold

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts that take part in the score."""
        return self._scorer.expert_names

    def score(self, image: ImageSource) -> Verdict:
        """Scores one image.

        An image of another size or aspect ratio is stretched to the size of the category. Arrays are RGB, not BGR as
        OpenCV reads them.

        Args:
            image: A path, an `s3://` URI, an encoded file as bytes, a Pillow image, or a uint8 or uint16 array of shape
                (H, W, 3) or (H, W).

        Raises:
            ImageError: The image cannot be decoded or scored, is too large, or has an unsupported type or shape.
            StoreError: The path or URI cannot be read.
            CaptionError: An expert needs a text, and the vision-language model gives none.
        """
        (outcome,) = self._outcomes([image])
        if isinstance(outcome, UniadRayError):
            raise outcome
        return outcome

    @overload
    def score_many(self, images: Iterable[ImageSource], *, errors: Literal["raise"] = "raise") -> Iterator[Verdict]: ...

    @overload
    def score_many(
        self, images: Iterable[ImageSource], *, errors: Literal["return"]
    ) -> Iterator[Verdict | UniadRayError]: ...

    def score_many(
        self, images: Iterable[ImageSource], *, errors: Literal["raise", "return"] = "raise"
    ) -> Iterator[Verdict | UniadRayError]:
        """Scores many images in batches, in order.

        The result is an iterator, so memory is bounded by one batch; `list(...)` keeps all verdicts. Images are read as
        the iterator advances.

        Args:
            images: Images as in `score`; any iterable, also a generator.
            errors: `raise` stops at the first bad image, after the verdicts before it. `return` gives the error in its
                place and continues.

        Yields:
            One verdict for each image; with `errors="return"` an `ImageError` or `StoreError` for each bad one.

        Raises:
            ImageError: As in `score`, with the index of the image in the message.
            StoreError: As in `score`, with the index of the image in the message.
            CaptionError: As in `score`.
            UserError: `images` is a single image, or `errors` is neither word.
        """
        if errors not in ("raise", "return"):
            raise UserError(f"errors={errors!r}: use 'raise' or 'return'")
        if _is_one_image(images):
            raise UserError("score_many takes several images; use score for one")
        return self._score_all(iter(images), errors == "raise")

    def _score_all(self, images: Iterator[ImageSource], raises: bool) -> Iterator[Verdict | UniadRayError]:
        index = 0
        while batch := list(islice(images, self._scorer.config.batch_size)):
            for outcome in self._outcomes(batch):
                if raises and isinstance(outcome, UniadRayError):
                    raise _with_index(outcome, index)
                yield outcome
                index += 1

    def _outcomes(self, sources: Sequence[ImageSource]) -> list[Verdict | UniadRayError]:
        """A verdict or an error for each image of a batch, in order."""
        outcomes: dict[int, Verdict | UniadRayError] = {}
        loaded: dict[int, LoadedImage] = {}
        for index, source in enumerate(sources):
            try:
                loaded[index] = self._loaded(source)
            except UniadRayError as error:
                outcomes[index] = error
        if loaded:
            pixels = np.stack([image.pixels for image in loaded.values()])
            # Two large images may be the same at the size of the bundle.
            keys = [
                f"{hashlib.sha256(one.tobytes()).hexdigest()}-{index}"
                for index, one in zip(loaded, pixels, strict=True)
            ]
            asked = self._scorer.pipeline.reads_originals
            originals = {key: self._original(sources[index]) for key, index in zip(keys, loaded, strict=True) if asked}
            for index, found in zip(loaded, self._scorer.score(keys, pixels, originals=originals), strict=True):
                outcomes[index] = found if isinstance(found, ImageError) else self._verdict(found, loaded[index])
        return [outcomes[index] for index in range(len(sources))]

    def _original(self, source: ImageSource) -> bytes | np.ndarray:
        """The image of a source as it was before it was stretched, for captions and detail."""
        if isinstance(source, (str, os.PathLike)):
            return Location.parse(source).read_bytes(max_bytes=DEFAULT_LIMITS.max_bytes)
        if isinstance(source, (np.ndarray, Image.Image)):
            return load_image(source, value_range=self._scorer.config.value_range).pixels
        return bytes(source)

    def _loaded(self, source: ImageSource) -> LoadedImage:
        config = self._scorer.config
        return load_image(source, config.decoded_size, value_range=config.value_range)

    def _verdict(self, found: ScoredVerdict, image: LoadedImage) -> Verdict:
        return Verdict(
            **vars(found),
            category=self.category,
            bundle_version=self.version,
            bundle_digest=self.digest,
            pixels=image.pixels,
            image_size=image.size,
            value_range=self._scorer.config.value_range,
        )


def load_model(
    bundles: str | os.PathLike[str],
    category: str,
    *,
    version: str | None = None,
    device: str = "auto",
    experts: Collection[str] | None = None,
    false_positive_rate: float | None = None,
) -> Model:
    """Loads a fitted model, and checks that it still gives the scores of its fit.

    Args:
        bundles: Root of the bundles, as given to `fit`: a path or an `s3://` URI.
        category: Category to score.
        version: Version of the bundle; default is the published one.
        device: `auto`, `cpu` or `cuda`.
        experts: Experts to use; the threshold follows from their held-out scores. Default all of the bundle.
        false_positive_rate: False-positive rate for the threshold, above 0 and below 1; default the bundle's.

    Raises:
        BundleError: There is no such bundle, it is corrupt, or it does not give the scores of its fit.
        ConfigError: The device is unknown or missing.
        StoreError: The store cannot be read.
        WeightsError: A network's weights cannot be found, or differ from those of the fit.

    >>> import uniad_ray as ur
    >>> model = ur.load_model("bundles", "trays")
    >>> model.score("damaged.png").decision
    'anomalous'
    """
    if false_positive_rate is not None and not 0 < false_positive_rate < 1:
        raise UserError(f"false_positive_rate={false_positive_rate}: it must be above 0 and below 1")
    chosen = choose_device(device)
    bundle = BundleStore(os.fspath(bundles)).load(category, version)
    scorer = bundle.scorer(device=chosen, only=experts, false_positive_rate=false_positive_rate)
    bundle.check_reference(scorer)
    return Model(bundle.manifest, scorer, chosen)


def _is_one_image(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim == 2 or (images.ndim == 3 and images.shape[2] == 3)
    return isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image))


def _with_index(error: UniadRayError, index: int) -> UniadRayError:
    """The same error, with the index of its image in the message."""
    message = f"image {index}: {error}"
    return ImageError(error.kind, message) if isinstance(error, ImageError) else type(error)(message)
