"""Ray sessions: local start, joining, error messages, and pipelines on one or two CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from uniad_ray.errors import ArchiveError, RunError
from uniad_ray.pipelines.cluster.session import local_cpus, ray_session, unwrap


@pytest.mark.parametrize(("cpus", "expected"), [(1, 4), (2, 4), (4, 4), (16, 16)])
def test_local_ray_has_at_least_four_cpus(monkeypatch: pytest.MonkeyPatch, cpus: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert local_cpus() == expected


def test_unwrap_finds_own_errors() -> None:
    inner = ArchiveError("damaged")
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = ValueError("in between")
    wrapped.__cause__.__cause__ = inner
    assert unwrap(wrapped) is inner
    advised = ArchiveError("damaged\nFailed to apply UDF transform after 1/1 attempts.\nTo change retry attempts, set")
    assert str(unwrap(advised)) == "damaged"
    other = ValueError("bug")
    assert unwrap(other) is other


def test_unreachable_address_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(RunError, match=r"cannot join the Ray cluster at 127\.0\.0\.1:1: .*refused"),
        ray_session("127.0.0.1:1"),
    ):
        pass


REFUSED = "Failed to connect to GCS. Last connection error: RpcError: Unauthenticated: RPC error: InvalidAuthToken"
NOT_THERE = "Failed to connect to GCS. Last connection error: RpcError: Timed out"


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (
            REFUSED,
            r"the Ray cluster at auto requires a token: set RAY_AUTH_MODE=token, and put the cluster's token in RAY",
        ),
        (NOT_THERE, r"cannot join the Ray cluster at auto: Failed to connect to Ray cluster; check the address$"),
    ],
)
def test_failed_join_is_tried_once_and_explained(monkeypatch: pytest.MonkeyPatch, cause: str, message: str) -> None:
    import ray

    asked = []

    def refused(**options: object) -> None:
        asked.append(options["address"])
        # As Ray raises it: only the cause holds the reason.
        raise ConnectionError("Failed to connect to Ray cluster.\nMore of it.") from RuntimeError(cause)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(RunError, match=f"^{message}"), ray_session("auto"):
        pass
    assert asked == ["auto"]


PIPELINE = """
import json, sys
import ray
from uniad_ray.pipelines.cluster.ray_start import start_local_ray
from uniad_ray.pipelines.cluster.session import ray_session, configure_ray_data
from uniad_ray.pipelines.cluster.sizing import Workers, plan_actors

class Double:
    def __call__(self, batch):
        return {"x": batch["x"] * 2}

cpus = int(sys.argv[1])
start_local_ray(cpus)
with ray_session() as cluster:
    configure_ray_data()
    workers = plan_actors({"doubling": Workers()}, cluster)["doubling"]
    dataset = ray.data.from_items([{"x": i} for i in range(8)], override_num_blocks=8)
    dataset = dataset.map(lambda row: {"x": row["x"] + 1}, num_cpus=cluster.cpu_share)
    dataset = dataset.map_batches(
        Double, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers.count),
        num_cpus=workers.cpus,
    )
    print(json.dumps(sorted(row["x"] for row in dataset.iter_rows())))
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 2])
def test_pipeline_finishes_on_one_or_two_cpus(cpus: int) -> None:
    """A pipeline like scoring, on a joined cluster that is too small for Ray Data's default requests."""
    ended = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(cpus)], capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout.splitlines()[-1]) == [2 * (i + 1) for i in range(8)]
