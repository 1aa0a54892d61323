from __future__ import annotations

import pytest

from uniad_ray.pipelines.caption.job import requested_workers
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers, plan_actors


@pytest.mark.parametrize(
    ("engine", "gpus", "asked", "actors", "on_gpu"),
    [
        ("vllm", 0, None, 1, False),
        ("vllm", 0, 2, 2, False),
        ("vllm", 4, None, 4, True),
        ("server", 4, None, 7, False),
        ("server", 4, 3, 3, False),
    ],
)
def test_one_engine_per_gpu_or_one(engine: str, gpus: int, asked: int | None, actors: int, on_gpu: bool) -> None:
    cluster = Cluster(8, 8, gpus, 8)
    pool = plan_actors({"captions": requested_workers(engine, Workers(asked), cluster)}, cluster)["captions"]
    assert (pool.count, pool.gpus > 0) == (actors, on_gpu)
