from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import StoreError
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.serving.http.catalogue import Catalogue
from uniad_ray.serving.http.problems import ProblemError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def publish(root: Path, *categories: str) -> None:
    for category in categories:
        pointer = {"category": category, "version": "1", "digest": "0" * 64}
        (Location.parse(root) / category / "current.json").write_json(pointer)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def settle(catalogue: Catalogue) -> None:
    """Wait for the refresh in the background."""
    if catalogue._look_behind is not None:
        await asyncio.wait([catalogue._look_behind])


def test_new_category_is_found_after_refresh_interval(tmp_path: Path) -> None:
    async def look() -> None:
        clock = Clock()
        catalogue = Catalogue(str(tmp_path), refresh_seconds=5, clock=clock)
        publish(tmp_path, "trays", "lids")
        assert await catalogue.categories() == ["lids", "trays"]
        await catalogue.require("lids")
        publish(tmp_path, "nuts")
        with pytest.raises(ProblemError) as caught:
            await catalogue.require("nuts")
        assert caught.value.kind == "unknown-category"
        clock.now = 5
        await catalogue.require("nuts")
        assert await catalogue.categories() == ["lids", "nuts", "trays"]

    run(look())


def test_removed_category_is_unknown_after_refresh(tmp_path: Path) -> None:
    async def look() -> None:
        clock = Clock()
        publish(tmp_path, "trays", "lids")
        catalogue = Catalogue(str(tmp_path), refresh_seconds=5, clock=clock)
        await catalogue.require("lids")
        (tmp_path / "lids/current.json").unlink()
        clock.now = 5
        await catalogue.categories()
        await settle(catalogue)
        with pytest.raises(ProblemError):
            await catalogue.require("lids")
        await catalogue.require("trays")

    run(look())


def test_unavailable_store_does_not_block_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store hangs until the test releases it, and then fails."""
    publish(tmp_path, "lids")
    may_fail = threading.Event()

    def away(_: BundleStore) -> list[str]:
        assert may_fail.wait(60)
        raise StoreError("the store does not respond")

    async def look() -> None:
        clock = Clock()
        catalogue = Catalogue(str(tmp_path), refresh_seconds=5, clock=clock)
        await catalogue.require("lids")
        with monkeypatch.context() as patch:
            patch.setattr(BundleStore, "categories", away)
            clock.now = 5
            for _ in range(3):
                await catalogue.require("lids")
            may_fail.set()
            await settle(catalogue)
            await catalogue.require("lids")
        publish(tmp_path, "nuts")
        clock.now = 10
        await catalogue.require("nuts")

    run(look())


def test_unmounted_folder_keeps_known_categories(tmp_path: Path) -> None:
    async def look() -> None:
        root = tmp_path / "bundles"
        publish(root, "lids")
        clock = Clock()
        catalogue = Catalogue(str(root), refresh_seconds=5, clock=clock)
        await catalogue.require("lids")
        root.rename(tmp_path / "moved")
        clock.now = 5
        assert await catalogue.categories() == ["lids"]
        await settle(catalogue)
        await catalogue.require("lids")

    run(look())


def test_store_is_unavailable_until_first_read(tmp_path: Path) -> None:
    async def look() -> None:
        publish(tmp_path, "lids")
        (tmp_path / "lids/current.json").write_text("{}")
        catalogue = Catalogue(str(tmp_path), refresh_seconds=5)
        for _ in range(2):
            with pytest.raises(ProblemError) as caught:
                await catalogue.require("lids")
            assert caught.value.kind == "store-unavailable"
        with pytest.raises(ProblemError) as caught:
            await catalogue.versions()
        assert caught.value.kind == "store-unavailable"
        publish(tmp_path, "lids")
        await catalogue.require("lids")

    run(look())
