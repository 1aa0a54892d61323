"""The scorer of a replica: bundles in one process, batches across requests, cached categories."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from uniad_ray import __version__
from uniad_ray.archive.images import decode_image
from uniad_ray.errors import BundleError, ImageError, StoreError, UniadRayError, UserError
from uniad_ray.pipelines.cluster.devices import limit_threads
from uniad_ray.pipelines.cluster.metrics import NoMetrics, Recorder
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.online_scorer import FirstVerdict
from uniad_ray.scoring.online_verdict import OnlineVerdict, UnusableImage
from uniad_ray.serving.replica.batcher import Batcher
from uniad_ray.serving.replica.captioners import choose_captioner
from uniad_ray.serving.replica.captions import CaptionsWithinDeadline, Completed
from uniad_ray.serving.replica.live_bundle import DecodedImage, LiveBundle, LoadedBundle
from uniad_ray.serving.replica.pictures import sixteen_bit_picture
from uniad_ray.serving.settings import ServeSettings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_logger = logging.getLogger(__name__)
_DECODERS = 2
_CHECKED_FOR_SECONDS = 5.0
"""How long a check of the reference images is valid; repeated requests cannot keep a replica busy."""

Outcome = FirstVerdict | ImageError


@dataclass(eq=False)
class LoadedCategory:
    """A recently used category of a replica.

    Attributes:
        live: Its bundle, kept up to date.
        score: Scores one image, batched with concurrent ones.
    """

    live: LiveBundle
    score: Batcher[DecodedImage, Outcome]


class ReplicaScorer:
    """Scores images of any category, one per call.

    Works without Serve, which keeps the results of `load`. A category is released when nothing references it.
    """

    def __init__(
        self,
        settings: ServeSettings,
        *,
        device: str,
        threads: int = 1,
        deployed: DeploymentHandle | None = None,
        metrics: Recorder | None = None,
    ) -> None:
        """Prepare the process; `load` loads bundles.

        Args:
            settings: Settings of the endpoint.
            device: `cpu` or `cuda`.
            threads: CPU threads of networks and neighbour search.
            deployed: Handle of the vLLM deployment, or None.
            metrics: Records stages and batches; None records nothing.
        """
        self.settings = settings
        self._metrics = metrics or NoMetrics()
        self._store = BundleStore(settings.bundles)
        self._device = device
        self._networks = threading.Lock()
        self._parallel = threads if device == "cpu" else 1
        self._parts = ThreadPoolExecutor(self._parallel, "part", limit_threads, (1,))
        # The threads of a network synchronize at every layer. Leave one core free to prepare the next images, or all of
        # them wait.
        self._scoring = ThreadPoolExecutor(1, "scoring", limit_threads, (max(1, threads - 1),))
        self._decoding = ThreadPoolExecutor(_DECODERS, "decoding")
        self._loading = ThreadPoolExecutor(1, "loading", limit_threads, (threads,))
        self._captions = CaptionsWithinDeadline(settings.engine, computing=self._scoring)
        self._deployed = deployed
        self._held: WeakValueDictionary[str, LoadedCategory] = WeakValueDictionary()
        self._one_load = asyncio.Lock()
        self._failed: dict[str, tuple[float, UniadRayError]] = {}
        self._check_error: str | None = None
        self._checked_at = -_CHECKED_FOR_SECONDS

    def categories(self) -> list[str]:
        """Return the categories with a published bundle."""
        return self._store.categories()

    def at_start(self) -> tuple[str, ...]:
        """Return the categories to load before the replica accepts requests."""
        replicas = self.settings.replicas
        if replicas.loaded_at_start is not None:
            return replicas.loaded_at_start
        return tuple(self.categories()[: replicas.categories])

    async def start(self, hold: Callable[[str], Awaitable[object]]) -> None:
        """Load the initial categories; categories that cannot be used are skipped.

        Args:
            hold: Loads a category and keeps it.

        Raises:
            UserError: No category can be used, or the store cannot be read.
        """
        failed: UserError | None = None
        for category in self.at_start():
            try:
                await hold(category)
            except StoreError:
                raise
            except UserError as error:
                # One bad bundle must not keep a new replica from serving the other categories.
                _logger.warning("cannot serve category %s: %s", category, error)
                failed = error
        if failed is not None and not self._held:
            raise failed

    async def load(self, category: str) -> LoadedCategory:
        """Load and check a category's bundle, unless it is already loaded.

        A failure is cached for `refresh_seconds`: requests for a corrupt bundle do not block other loads.

        Raises:
            BundleError: There is no bundle, or it cannot be used.
            StoreError: The store cannot be read.
        """
        held = self._held.get(category)
        if held is not None:
            return held
        async with self._one_load:
            held = self._held.get(category)
            if held is not None:
                return held
            failed_at, failure = self._failed.get(category, (0.0, None))
            if failure is not None and time.monotonic() - failed_at < self.settings.refresh_seconds:
                raise failure.with_traceback(None)
            try:
                loaded = await self._load(category)
            except UniadRayError as error:
                self._failed[category] = (time.monotonic(), error)
                raise
            self._failed.pop(category, None)
            self._held[category] = loaded
            return loaded

    async def score(
        self, category: LoadedCategory, data: bytes, *, with_map: bool, nearest: int
    ) -> OnlineVerdict | UnusableImage:
        """Score one image.

        Args:
            category: Category of the image.
            data: The encoded file.
            with_map: Whether to return the anomaly map.
            nearest: Number of nearest normal images to return.
        """
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self.settings.engine.deadline_seconds
        loaded = category.live.current
        scorer, manifest = loaded.scorer, loaded.manifest
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            started = time.monotonic()
            decoded = await loop.run_in_executor(self._decoding, self._decode, loaded, sha256, data)
            self._metrics.observe("uniad_ray_replica_stage_seconds", time.monotonic() - started, stage="decode")
            first = await category.score(decoded)
        except ImageError as error:
            first = error
        if isinstance(first, ImageError):
            return UnusableImage(first.kind, str(first))
        completed: Completed = await self._captions.complete(scorer, first, deadline, loaded.no_texts)
        verdict, reason = completed.verdict, completed.reason
        if isinstance(verdict, ImageError):
            return UnusableImage(verdict.kind, str(verdict))
        picture = await loop.run_in_executor(self._decoding, self._picture, loaded, data) if with_map else None
        return OnlineVerdict(
            verdict=verdict if with_map else replace(verdict, anomaly_map=None),
            left_out=verdict.left_out if reason is None else dict.fromkeys(scorer.awaiting, reason),
            nearest=tuple(scorer.nearest(first.descriptor, nearest)) if nearest else (),
            bundle_version=manifest.version,
            bundle_digest=manifest.digest,
            code_version=__version__,
            image_sha256=sha256,
            region=loaded.region_line if with_map else None,
            picture=picture,
        )

    async def refresh_for_ever(self) -> None:
        """Load newly published bundles every `refresh_seconds`, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            for live in self._lives():
                try:
                    await loop.run_in_executor(self._loading, live.refresh)
                except Exception:
                    _logger.exception("cannot refresh category %s; its bundle stays in use", live.category)

    async def check(self) -> dict[str, Any]:
        """Score the reference images of all loaded bundles, unless the last check is still valid.

        Returns:
            `checked`: the loaded categories; `error`: the first error, or None.
        """
        loop = asyncio.get_running_loop()
        if time.monotonic() - self._checked_at >= _CHECKED_FOR_SECONDS:
            self._checked_at = time.monotonic()
            self._check_error = await loop.run_in_executor(self._scoring, self._check_all)
        return {"checked": [live.category for live in self._lives()], "error": self._check_error}

    def status(self) -> list[dict[str, Any]]:
        """Return the status of each loaded category."""
        return [live.status() for live in self._lives()]

    def check_health(self) -> None:
        """Raise the error of the last check; nothing is scored.

        Raises:
            BundleError: A bundle no longer reproduces the scores of its fit; Serve must replace the replica.
        """
        if self._check_error is not None:
            raise BundleError(self._check_error)

    async def _load(self, category: str) -> LoadedCategory:
        loop = asyncio.get_running_loop()
        live = await loop.run_in_executor(
            self._loading,
            lambda: LiveBundle(
                self._store,
                category,
                device=self._device,
                lock=self._networks,
                choose_captioner=lambda extractor: choose_captioner(
                    extractor, self.settings.engine, self._deployed, loop
                ),
            ),
        )

        async def score_together(images: list[DecodedImage]) -> list[Outcome]:
            started = time.monotonic()
            try:
                return await loop.run_in_executor(self._scoring, self._score_batch, images)
            finally:
                self._metrics.observe("uniad_ray_replica_stage_seconds", time.monotonic() - started, stage="score")
                self._metrics.observe("uniad_ray_replica_batch_images", len(images))

        batch = self.settings.batch
        return LoadedCategory(live, Batcher(score_together, most=batch.images, wait_seconds=batch.wait_seconds))

    def _lives(self) -> list[LiveBundle]:
        return [held.live for _, held in sorted(self._held.items())]

    def _check_all(self) -> str | None:
        try:
            for live in self._lives():
                live.check()
        except UniadRayError as error:
            return str(error)
        return None

    def _decode(self, loaded: LoadedBundle, row_key: str, data: bytes) -> DecodedImage:
        config = loaded.scorer.full.config
        pixels = decode_image(data, config.decoded_size, self.settings.limits.of_an_image, config.value_range)
        return DecodedImage(loaded, row_key, pixels, data if loaded.scorer.full.pipeline.reads_originals else b"")

    def _picture(self, loaded: LoadedBundle, data: bytes) -> bytes | None:
        return sixteen_bit_picture(data, self.settings.limits.of_an_image, loaded.scorer.full.config.value_range)

    def _score_batch(self, images: list[DecodedImage]) -> list[Outcome]:
        """Score a batch of images; during a refresh, it may mix images of the old and the new bundle."""
        outcomes: dict[int, Outcome] = {}
        for loaded in {id(image.loaded): image.loaded for image in images}.values():
            rows = [row for row, image in enumerate(images) if image.loaded is loaded]
            pixels = np.stack([images[row].pixels for row in rows])
            originals = {images[row].row_key: images[row].data for row in rows if images[row].data}
            with self._networks:
                found = self._begin(loaded, [images[row].row_key for row in rows], pixels, originals)
            outcomes.update(zip(rows, found, strict=True))
        return [outcomes[row] for row in range(len(images))]

    def _begin(
        self, loaded: LoadedBundle, row_keys: list[str], pixels: np.ndarray, originals: dict[str, bytes]
    ) -> list[FirstVerdict]:
        """Score a batch: one image with several threads, several images in parts with one thread each."""
        count = min(self._parallel, len(row_keys))
        if count == 1:
            return loaded.scorer.begin(row_keys, pixels, originals)
        parts = np.array_split(np.arange(len(row_keys)), count)
        found = self._parts.map(
            lambda part: loaded.scorer.begin(
                [row_keys[row] for row in part], pixels[part[0] : part[-1] + 1], originals
            ),
            parts,
        )
        return [first for part in found for first in part]
