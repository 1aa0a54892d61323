"""An S3 server that stops while an endpoint uses it; the endpoint's parts run here without Ray Serve."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from support.endpoint import png, same_verdict, verdicts, write_bundle
from support.replica_backend import ReplicaInProcess
from support.s3_server import run_s3_server

from uniad_ray.archive.stores.s3_client import limit_attempts
from uniad_ray.errors import StoreError
from uniad_ray.serving.http.catalogue import Catalogue
from uniad_ray.serving.settings import STORE_ATTEMPTS, ServeSettings


def test_loaded_categories_score_and_others_are_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose_the_store(root: str, server: int) -> None:
        replica = ReplicaInProcess(ServeSettings(bundles=root, refresh_seconds=0.1))
        catalogue = Catalogue(root, refresh_seconds=0.1)
        await catalogue.require("lids")
        assert same_verdict(await replica.score("lids", png(1), with_map=False, nearest=0), wanted)
        upkeep = asyncio.create_task(replica.scorer.refresh_for_ever())
        os.kill(server, signal.SIGKILL)
        await asyncio.sleep(0.3)
        for _ in range(5):
            started = time.monotonic()
            await catalogue.require("lids")
            assert same_verdict(await replica.score("lids", png(1), with_map=False, nearest=0), wanted)
            assert time.monotonic() - started < 2
        started = time.monotonic()
        with pytest.raises(StoreError):
            await replica.score("trays", png(1), with_map=False, nearest=0)
        assert time.monotonic() - started < 15
        for _ in range(100):
            if replica.scorer.status()[0]["store_error"]:
                break
            await asyncio.sleep(0.1)
        assert replica.scorer.status()[0]["store_error"]
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
