"""Ray on machines of one and two CPUs: what is started, and that a pipeline of two stages ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from uniad_ray.errors import ArchiveError, RunError
from uniad_ray.pipelines.fit import choose_threads
from uniad_ray.pipelines.ray_session import Cluster, local_cpus, ray_session, unwrap
from uniad_ray.pipelines.score import Workers, choose_workers


@pytest.mark.parametrize(("cpus", "expected"), [(1, 4), (2, 4), (4, 4), (16, 16)])
def test_a_local_ray_never_has_fewer_than_four_cpus(monkeypatch: pytest.MonkeyPatch, cpus: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert local_cpus() == expected


@pytest.mark.parametrize("logical", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("physical", [1, 2, 8, 64])
def test_actors_and_what_feeds_them_always_fit(logical: int, physical: int) -> None:
    cluster = Cluster(logical_cpus=logical, physical_cpus=min(physical, logical), gpus=0, node_cpus=logical)
    workers = choose_workers(Workers(), cluster)
    assert workers.count is not None
    assert workers.threads is not None
    taken = workers.count * workers.threads * cluster.cpu_share
    assert workers.count >= 1
    assert taken + cluster.cpu_share <= logical
    assert workers.count * workers.threads <= max(cluster.physical_cpus, 1)


def test_a_gpu_has_one_actor() -> None:
    assert choose_workers(Workers(), Cluster(logical_cpus=16, physical_cpus=16, gpus=2, node_cpus=16)).count == 2
    assert (
        choose_workers(Workers(device="cpu"), Cluster(logical_cpus=16, physical_cpus=16, gpus=2, node_cpus=16)).count
        == 14
    )


def test_gpus_that_may_come_are_asked_for_by_name() -> None:
    growing = Cluster(logical_cpus=4, physical_cpus=4, gpus=0, node_cpus=4, can_grow=True)
    assert choose_workers(Workers(count=4, device="cuda"), growing).count == 4
    assert growing.uses_gpus("cuda")
    assert not growing.uses_gpus("auto")


def test_a_gpu_that_cannot_come_is_refused() -> None:
    with pytest.raises(RunError, match="device cuda: there is no GPU here; use --device cpu or auto"):
        choose_workers(Workers(device="cuda"), Cluster(logical_cpus=4, physical_cpus=4, gpus=0, node_cpus=4))


@pytest.mark.parametrize(
    ("categories", "node_cpus", "nodes", "expected"),
    [(1, 2, 2, 2), (1, 16, 4, 8), (1, 4, 1, 4), (3, 4, 2, 2), (99, 8, 2, 1)],
)
def test_a_fit_finds_its_place_on_one_node(categories: int, node_cpus: int, nodes: int, expected: int) -> None:
    cpus = node_cpus * nodes
    cluster = Cluster(logical_cpus=cpus, physical_cpus=cpus, gpus=0, node_cpus=node_cpus)
    assert choose_threads(categories, cluster) == expected


def test_more_workers_than_fit_are_refused_instead_of_waiting_for_ever() -> None:
    with pytest.raises(RunError, match="5 workers of 1 threads do not fit 4 CPUs beside decoding; use at most 3"):
        choose_workers(Workers(count=5, threads=1), Cluster(logical_cpus=4, physical_cpus=4, gpus=0, node_cpus=4))


def test_our_errors_are_found_inside_wrappers() -> None:
    inner = ArchiveError("damaged")
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = ValueError("in between")
    wrapped.__cause__.__cause__ = inner
    assert unwrap(wrapped) is inner
    advised = ArchiveError("damaged\nFailed to apply UDF transform after 1/1 attempts.\nTo change retry attempts, set")
    assert str(unwrap(advised)) == "damaged"
    other = ValueError("bug")
    assert unwrap(other) is other


def test_an_address_where_nothing_listens_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(RunError, match=r"the Ray cluster at 127\.0\.0\.1:1 cannot be joined: .*refused"),
        ray_session("127.0.0.1:1"),
    ):
        pass


REFUSED = "Failed to connect to GCS. Last connection error: RpcError: Unauthenticated: RPC error: InvalidAuthToken"
NOT_THERE = "Failed to connect to GCS. Last connection error: RpcError: Timed out"


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (REFUSED, r"asks for a token: set RAY_AUTH_MODE=token, and set RAY_AUTH_TOKEN to the cluster's token or keep"),
        (NOT_THERE, r"cannot be joined: Failed to connect to Ray cluster; check the address$"),
    ],
)
def test_cluster_that_cannot_be_joined_is_asked_once_and_says_why(
    monkeypatch: pytest.MonkeyPatch, cause: str, message: str
) -> None:
    import ray

    asked = []

    def refused(**options: object) -> None:
        asked.append(options["address"])
        # As Ray raises it: the reason is in the cause alone.
        raise ConnectionError("Failed to connect to Ray cluster.\nMore of it.") from RuntimeError(cause)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(RunError, match=f"^the Ray cluster at auto {message}"), ray_session("auto"):
        pass
    assert asked == ["auto"]


PIPELINE = """
import json, sys, logging
import ray
from uniad_ray.pipelines.ray_session import ray_session, configure_ray_data
from uniad_ray.pipelines.score import Workers, choose_workers

class Double:
    def __call__(self, batch):
        return {"x": batch["x"] * 2}

cpus = int(sys.argv[1])
ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
with ray_session() as cluster:
    configure_ray_data()
    workers = choose_workers(Workers(), cluster)
    dataset = ray.data.from_items([{"x": i} for i in range(8)], override_num_blocks=8)
    dataset = dataset.map(lambda row: {"x": row["x"] + 1}, num_cpus=cluster.cpu_share)
    dataset = dataset.map_batches(
        Double, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers.count),
        num_cpus=cluster.cpu_share * workers.threads,
    )
    print(json.dumps(sorted(row["x"] for row in dataset.iter_rows())))
ray.shutdown()
"""


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_pipeline_ends_on_a_cluster_of_one_or_two_cpus(cpus: int) -> None:
    """The shape of the scoring pipeline on a joined cluster that is too small for Ray Data's usual requests."""
    ended = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(cpus)], capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout.splitlines()[-1]) == [2 * (i + 1) for i in range(8)]
