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
    """Waits for the look that nobody waits for."""
    if catalogue._look_behind is not None:
        await asyncio.wait([catalogue._look_behind])


def test_a_look_counts_for_a_while_and_a_new_category_is_found_at_once(tmp_path: Path) -> None:
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


def test_a_category_that_is_gone_is_unknown_after_a_look(tmp_path: Path) -> None:
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


def test_a_store_that_is_away_keeps_nobody_waiting_and_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store hangs until the test says so, and then fails."""
    publish(tmp_path, "lids")
    may_fail = threading.Event()

    def away(_: BundleStore) -> list[str]:
        assert may_fail.wait(60)
        raise StoreError("the store does not answer")

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


def test_a_folder_that_is_not_mounted_is_no_empty_store(tmp_path: Path) -> None:
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


def test_a_store_that_was_never_read_is_unavailable_until_it_is(tmp_path: Path) -> None:
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
