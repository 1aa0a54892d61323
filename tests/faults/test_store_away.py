"""An S3 server that stops while an endpoint uses it; the endpoint's parts run here without Ray Serve."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest
from support.endpoint import png, same_verdict, verdicts, write_bundle
from support.replica_backend import ReplicaInProcess
from support.s3_server import run_s3_server

from uniad_ray.archive.stores.patience import PATIENCE_SECONDS
from uniad_ray.archive.stores.s3_client import limit_attempts
from uniad_ray.errors import StoreError
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.serving.http.catalogue import Catalogue
from uniad_ray.serving.settings import STORE_ATTEMPTS, ServeSettings

SECONDS = 0.9 * PATIENCE_SECONDS
"""Long for a busy machine, and too short for a request that waits for the store as a night does."""


def test_loaded_categories_score_and_others_are_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    may_list, categories = threading.Event(), BundleStore.categories

    def list_late(store: BundleStore) -> list[str]:
        may_list.wait(2 * SECONDS)
        return categories(store)

    async def lose_the_store(root: str, server: int) -> None:
        replica = ReplicaInProcess(ServeSettings(bundles=root, refresh_seconds=0.1))
        catalogue = Catalogue(root, refresh_seconds=0.1)
        await catalogue.require("lids")
        assert same_verdict(await replica.score("lids", png(1), with_map=False, nearest=0), wanted)
        upkeep = asyncio.create_task(replica.scorer.refresh_for_ever())
        monkeypatch.setattr(BundleStore, "categories", list_late)
        os.kill(server, signal.SIGKILL)
        await asyncio.sleep(0.3)
        for _ in range(5):
            async with asyncio.timeout(SECONDS):
                await catalogue.require("lids")
                assert same_verdict(await replica.score("lids", png(1), with_map=False, nearest=0), wanted)
        may_list.set()
        async with asyncio.timeout(SECONDS):
            with pytest.raises(StoreError):
                await replica.score("trays", png(1), with_map=False, nearest=0)
            while not replica.scorer.status()[0]["store_error"]:
                await asyncio.sleep(0.1)
        upkeep.cancel()

    # `monkeypatch` restores the variable after the test, whatever the code sets.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    limit_attempts(STORE_ATTEMPTS)
    with run_s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        root = f"s3://{server.bucket}/bundles"
        version = write_bundle(root, "lids").version
        write_bundle(root, "trays")
        (wanted,) = verdicts(root, "lids", version, [png(1)])
        asyncio.run(lose_the_store(root, server.pid))
