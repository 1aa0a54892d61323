"""Ray on machines of one and two CPUs: what is started, and that a pipeline of two stages ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from uniad_ray.errors import ArchiveError, RunError
from uniad_ray.pipelines.ray_session import Cluster, local_cpus, ray_session, unwrap
from uniad_ray.pipelines.score import Workers, choose_workers


@pytest.mark.parametrize(("cpus", "expected"), [(1, 4), (2, 4), (4, 4), (16, 16)])
def test_a_local_ray_never_has_fewer_than_four_cpus(monkeypatch: pytest.MonkeyPatch, cpus: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert local_cpus() == expected


@pytest.mark.parametrize("logical", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("physical", [1, 2, 8, 64])
def test_actors_and_what_feeds_them_always_fit(logical: int, physical: int) -> None:
    cluster = Cluster(logical_cpus=logical, physical_cpus=min(physical, logical), gpus=0)
    workers = choose_workers(Workers(), cluster)
    assert workers.count is not None
    assert workers.threads is not None
    taken = workers.count * workers.threads * cluster.cpu_share
    assert workers.count >= 1
    assert taken + cluster.cpu_share <= logical
    assert workers.count * workers.threads <= max(cluster.physical_cpus, 1)


def test_a_gpu_has_one_actor() -> None:
    assert choose_workers(Workers(), Cluster(logical_cpus=16, physical_cpus=16, gpus=2)).count == 2
    assert choose_workers(Workers(device="cpu"), Cluster(logical_cpus=16, physical_cpus=16, gpus=2)).count == 14


def test_more_workers_than_fit_are_refused_instead_of_waiting_for_ever() -> None:
    with pytest.raises(RunError, match="5 workers of 1 threads do not fit 4 CPUs beside decoding; use at most 3"):
        choose_workers(Workers(count=5, threads=1), Cluster(logical_cpus=4, physical_cpus=4, gpus=0))


def test_our_errors_are_found_inside_wrappers() -> None:
    inner = ArchiveError("damaged")
    wrapped = RuntimeError("task failed")
    wrapped.__cause__ = ValueError("in between")
    wrapped.__cause__.__cause__ = inner
    assert unwrap(wrapped) is inner
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
