"""Catalogue of categories and bundle versions, refreshed from the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from uniad_ray.errors import BundleError, StoreError
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.bundles.versions import BundleVersion, list_bundles
from uniad_ray.serving.http.problems import ProblemError

_logger = logging.getLogger(__name__)
_UNAVAILABLE = "the bundle store is unavailable; try again"


class Catalogue:
    """Categories and versions of a bundle store; the last known categories if the store is unavailable."""

    def __init__(self, bundles: str, *, refresh_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Name the store; nothing is read yet.

        Args:
            bundles: Root of the bundles.
            refresh_seconds: How long a listing is valid.
            clock: Monotonic clock, in seconds.
        """
        self._root = bundles
        self._store = BundleStore(bundles)
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._categories: list[str] | None = None
        self._looked_at = 0.0
        self._one_look = asyncio.Lock()
        self._look_behind: asyncio.Task[list[str]] | None = None

    async def categories(self) -> list[str]:
        """Return the categories with a published bundle, sorted; an old listing is refreshed in the background.

        Raises:
            ProblemError: `store-unavailable`, if the store has never been read.
        """
        if self._categories is None:
            return await self._look()
        if self._is_due() and (self._look_behind is None or self._look_behind.done()):
            # No request waits for this: an unavailable store takes long to fail.
            self._look_behind = asyncio.create_task(self._look())
        return self._categories

    async def require(self, category: str) -> None:
        """Check that a category has a published bundle.

        Raises:
            ProblemError: `unknown-category` or `store-unavailable`.
        """
        if category not in await self.categories() and category not in await self._look():
            raise ProblemError(
                "unknown-category",
                f"no published category {category[:100]!r}; GET /v1/categories lists the published ones",
            )

    async def versions(self) -> tuple[BundleVersion, ...]:
        """Return all versions of all categories.

        Raises:
            ProblemError: `store-unavailable`.
        """
        try:
            return (await asyncio.to_thread(list_bundles, self._root)).bundles
        except (StoreError, BundleError) as error:
            raise ProblemError("store-unavailable", _UNAVAILABLE, retry_after=5) from error

    async def _look(self) -> list[str]:
        """Read the store, if the listing is missing or old."""
        async with self._one_look:
            if self._categories is None or self._is_due():
                try:
                    found = await asyncio.to_thread(self._store.categories)
                except (StoreError, BundleError) as error:
                    if self._categories is None:
                        raise ProblemError("store-unavailable", _UNAVAILABLE, retry_after=5) from error
                    _logger.warning("cannot list the categories, keeping the old list: %s", error)
                    found = self._categories
                # A folder that is not mounted looks empty: keep the old list.
                self._categories = found or self._categories or []
                self._looked_at = self._clock()
            return self._categories

    def _is_due(self) -> bool:
        return self._clock() - self._looked_at >= self._refresh_seconds
