"""The published bundle of a category in memory, replaced without interruption when a new one is published."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.errors import BundleError, StoreError, UniadRayError
from uniad_ray.perception.base import AskingExtractor
from uniad_ray.perception.captions.base import Captioner
from uniad_ray.reporting.drawing.pictures import region_png
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.reference_images import Reference
from uniad_ray.scoring.bundles.store import BundleStore, Pointer
from uniad_ray.scoring.online_scorer import OnlineScorer, build_online_scorer

_logger = logging.getLogger(__name__)
_LINE_SIDE: Final = 640


ChooseCaptioner = Callable[[AskingExtractor], Captioner | str]
"""Returns the captioner of an extractor, or the reason why there is none."""


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle that reproduces the scores of the fit on its reference images.

    Attributes:
        manifest: Manifest of the bundle.
        pointer: Pointer that published it.
        scorer: Its scorer.
        reference: Its reference images and their scores.
        no_texts: Why no captioner is available; None if one is, or if no expert needs texts.
        seconds: Time to load and check it.
    """

    manifest: BundleManifest
    pointer: Pointer
    scorer: OnlineScorer
    reference: Reference
    no_texts: str | None
    seconds: float

    @cached_property
    def region_line(self) -> bytes | None:
        """Line around the part of the images that counts, as a PNG with transparency; None if all of it does."""
        region = self.scorer.full.pipeline.region
        if region is None:
            return None
        return region_png(region.at(fitted_size((region.mask.height, region.mask.width), _LINE_SIDE)))

    def check(self) -> None:
        """Score the reference images again with the experts that need no texts.

        Raises:
            BundleError: A score differs from that of the fit.
        """
        if self.scorer.first is not None:
            self.reference.check(self.scorer.first)


class LiveBundle:
    """The live bundle of a category; any thread may read `current` during a refresh."""

    def __init__(
        self,
        store: BundleStore,
        category: str,
        *,
        device: str,
        lock: threading.Lock,
        choose_captioner: ChooseCaptioner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load and check the published bundle.

        Args:
            store: Bundle store.
            category: The category.
            device: Torch device.
            lock: Held while networks run: a check must not compete with a batch for the cores.
            choose_captioner: Chooses the captioner of an extractor.
            clock: Monotonic clock, in seconds.

        Raises:
            BundleError: There is no published bundle, it is corrupt, or it does not reproduce the scores of the fit.
            StoreError: The store cannot be read.
        """
        self.category = category
        self._store = store
        self._device = device
        self._lock = lock
        self._choose_captioner = choose_captioner
        self._clock = clock
        pointer = store.pointer(category)
        if pointer is None:
            raise BundleError(f"no published bundle for category {category!r}; publish one with `uniad-ray fit`")
        self._current = self._load(pointer)
        self._refused: tuple[Pointer, str] | None = None
        self._store_error: str | None = None

    @property
    def current(self) -> LoadedBundle:
        """The bundle in use."""
        return self._current

    def refresh(self) -> bool:
        """Load a newly published bundle; a bad one is refused and the old one stays in use.

        Returns:
            Whether the bundle in use changed.
        """
        try:
            pointer = self._store.pointer(self.category)
        except UniadRayError as error:
            self._note_store_error(str(error))
            return False
        if pointer is None:
            self._note_store_error("the category no longer has a published bundle")
            return False
        if pointer == self._current.pointer:
            self._store_error = self._refused = None
            return False
        if self._refused is not None and self._refused[0] == pointer:
            return False
        try:
            loaded = self._load(pointer)
        except StoreError as error:
            self._note_store_error(str(error))
            return False
        except UniadRayError as error:
            self._refused, self._store_error = (pointer, str(error)), None
            _logger.warning(
                "refused bundle %s %s; %s stays in use: %s", self.category, pointer.version, self.version, error
            )
            return False
        _logger.info("bundle %s %s replaces %s", self.category, pointer.version, self.version)
        self._current, self._refused, self._store_error = loaded, None, None
        return True

    def check(self) -> None:
        """Score the reference images of the bundle in use again.

        Raises:
            BundleError: A score differs from that of the fit.
        """
        with self._lock:
            self._current.check()

    @property
    def version(self) -> str:
        """Version of the bundle in use."""
        return self._current.manifest.version

    def status(self) -> dict[str, Any]:
        """Return the status of the category, as JSON types."""
        manifest = self._current.manifest
        refused = None
        if self._refused is not None:
            refused = {"version": self._refused[0].version, "reason": self._refused[1]}
        return {
            "category": self.category,
            "version": manifest.version,
            "digest": manifest.digest,
            "load_seconds": round(self._current.seconds, 3),
            "experts": list(self._current.scorer.full.expert_names),
            "no_texts": self._current.no_texts,
            "refused": refused,
            "store_error": self._store_error,
        }

    def _load(self, pointer: Pointer) -> LoadedBundle:
        started = self._clock()
        bundle = self._store.load_published(pointer)
        scorer = build_online_scorer(bundle, device=self._device)
        no_texts = self._prepare_texts(scorer)
        if scorer.first is None and no_texts is not None:
            raise BundleError(f"bundle {self.category} {pointer.version} cannot score without texts: {no_texts}")
        loaded = LoadedBundle(bundle.manifest, pointer, scorer, bundle.reference, no_texts, 0.0)
        with self._lock:
            loaded.check()
        return replace(loaded, seconds=self._clock() - started)

    def _prepare_texts(self, scorer: OnlineScorer) -> str | None:
        """Give each extractor its captioner; return the reason if there is none."""
        for extractor in scorer.full.pipeline.asking:
            chosen = self._choose_captioner(extractor)
            if isinstance(chosen, str):
                return chosen
            extractor.captioner = chosen
        return None

    def _note_store_error(self, text: str) -> None:
        if self._store_error is None:
            _logger.warning("cannot read the bundle store; %s %s stays in use: %s", self.category, self.version, text)
        self._store_error = text


@dataclass(frozen=True)
class DecodedImage:
    """One image of a request, at the image size of its bundle.

    Attributes:
        loaded: The bundle that scores it.
        row_key: sha256 of the encoded bytes.
        pixels: uint8, shape (H, W, 3), RGB.
        data: The encoded bytes, for captions.
    """

    loaded: LoadedBundle
    row_key: str
    pixels: np.ndarray
    data: bytes = b""
