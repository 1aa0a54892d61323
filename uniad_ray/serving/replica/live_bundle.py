"""The published bundle of a category in memory, replaced while requests go on when another is published."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uniad_ray.errors import BundleError, StoreError, UniadRayError
from uniad_ray.perception.base import AskingExtractor
from uniad_ray.perception.captions.base import Captioner
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.reference_images import Reference
from uniad_ray.scoring.bundles.store import BundleStore, Pointer
from uniad_ray.scoring.online_scorer import OnlineScorer, build_online_scorer

_logger = logging.getLogger(__name__)


ChooseCaptioner = Callable[[AskingExtractor], Captioner | str]
"""What an extractor asks for texts, or why there is nothing to ask."""


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle that has given its reference images the scores of the fit.

    Attributes:
        manifest: What it is.
        pointer: The pointer that named it.
        scorer: Scores with all that takes part.
        reference: What it is checked by.
        no_texts: Why there is nothing to ask for texts; None where there is, or where no expert needs any.
        seconds: Time to load and check it.
    """

    manifest: BundleManifest
    pointer: Pointer
    scorer: OnlineScorer
    reference: Reference
    no_texts: str | None
    seconds: float

    def check(self) -> None:
        """Scores the reference images again with the experts that need no texts.

        Raises:
            BundleError: A score is another than the fit's.
        """
        if self.scorer.first is not None:
            self.reference.check(self.scorer.first)


class LiveBundle:
    """What a replica knows of a category; `current` may be read by any thread while another refreshes."""

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
        """Loads and checks the published bundle.

        Args:
            store: Where bundles lie.
            category: The category.
            device: Torch device.
            lock: Held while networks run, so that a check does not fight a batch for the cores.
            choose_captioner: Says what is asked for texts.
            clock: Seconds that never go back.

        Raises:
            BundleError: There is none, or it is damaged, or it does not give the scores of the fit.
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
            raise BundleError(f"no published bundle for category {category!r}")
        self._current = self._load(pointer)
        self._refused: tuple[Pointer, str] | None = None
        self._store_error: str | None = None

    @property
    def current(self) -> LoadedBundle:
        """The bundle that scores now."""
        return self._current

    def refresh(self) -> bool:
        """Takes up a newly published bundle; a bad one is refused, and the old one stays.

        Returns:
            Whether another bundle scores now.
        """
        try:
            pointer = self._store.pointer(self.category)
        except UniadRayError as error:
            self._note_store_error(str(error))
            return False
        if pointer is None:
            self._note_store_error("the category has no published bundle any more")
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
                "bundle %s %s is refused; %s goes on: %s", self.category, pointer.version, self.version, error
            )
            return False
        _logger.info("bundle %s %s takes the place of %s", self.category, pointer.version, self.version)
        self._current, self._refused, self._store_error = loaded, None, None
        return True

    def check(self) -> None:
        """Scores the reference images of the current bundle again.

        Raises:
            BundleError: A score is another than the fit's.
        """
        with self._lock:
            self._current.check()

    @property
    def version(self) -> str:
        """Version of the bundle that scores now."""
        return self._current.manifest.version

    def status(self) -> dict[str, Any]:
        """What there is to say of the category, as JSON types."""
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
            raise BundleError(f"bundle {self.category} {pointer.version} says nothing without texts: {no_texts}")
        loaded = LoadedBundle(bundle.manifest, pointer, scorer, bundle.reference, no_texts, 0.0)
        with self._lock:
            loaded.check()
        return replace(loaded, seconds=self._clock() - started)

    def _prepare_texts(self, scorer: OnlineScorer) -> str | None:
        """Has extractors ask what answers in time; the reason where there is nothing to ask."""
        for extractor in scorer.full.pipeline.asking:
            chosen = self._choose_captioner(extractor)
            if isinstance(chosen, str):
                return chosen
            extractor.captioner = chosen
        return None

    def _note_store_error(self, text: str) -> None:
        if self._store_error is None:
            _logger.warning("the store cannot be read, %s %s goes on: %s", self.category, self.version, text)
        self._store_error = text


@dataclass(frozen=True)
class DecodedImage:
    """One image of a request, at the input size of the bundle that is to score it.

    Attributes:
        loaded: That bundle.
        row_key: sha256 of the encoded bytes.
        pixels: uint8, shape (input_size, input_size, 3), RGB.
    """

    loaded: LoadedBundle
    row_key: str
    pixels: np.ndarray
