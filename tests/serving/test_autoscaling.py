"""Autoscaling under load, with real Serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.endpoint import Load, Response, endpoint, png, wait_for, write_bundle


@pytest.mark.slow
def test_second_replica_starts_under_load(serve_port: int, tmp_path: Path) -> None:
    from ray import serve

    write_bundle(tmp_path, "part")
    image = png(1)
    settings = {
        "bundles": str(tmp_path),
        "replicas": {"fewest": 1, "most": 2, "threads": 1, "device": "cpu", "queued_images": 100},
        "batch": {"images": 1},
    }

    def running() -> int:
        found = serve.status().applications["uniad_ray"].deployments["Scorer"].replica_states
        return int(found.get("RUNNING", 0))

    with endpoint(serve_port, settings) as client:

        def send(number: int) -> tuple[int, Response]:
            return number, client.score("part", image)

        assert running() == 1
        with Load(send, clients=8) as load:
            wait_for(lambda: running() == 2, seconds=240)
            load.wait_for_more(20)
        assert load.errors == []
        assert {response.status for _, response in load.answers} == {200}
