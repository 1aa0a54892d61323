from __future__ import annotations

import pytest

from uniad_ray.errors import RunError
from uniad_ray.perception.field_rows import STAGES
from uniad_ray.pipelines.decoding import DECODE_CPUS
from uniad_ray.pipelines.ray_session import Cluster
from uniad_ray.pipelines.score import Workers
from uniad_ray.pipelines.stage_pools import choose_pools

OPEN = dict.fromkeys(STAGES, Workers())


def cluster(logical: int, physical: int, gpus: int = 0, *, can_grow: bool = False) -> Cluster:
    return Cluster(logical, physical, gpus, node_cpus=logical, can_grow=can_grow)


@pytest.mark.parametrize("logical", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("physical", [1, 2, 8, 64])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_all_stages_and_what_feeds_them_always_fit(logical: int, physical: int, stages: int) -> None:
    found = cluster(logical, min(logical, physical))
    pools = choose_pools({stage: Workers() for stage in STAGES[:stages]}, found)
    taken = sum(pool.count * pool.threads for pool in pools.values())
    assert min(pool.count for pool in pools.values()) >= 1
    assert (taken + DECODE_CPUS) * found.cpu_share <= logical
    assert {pool.gpus for pool in pools.values()} == {0.0}


@pytest.mark.parametrize(("gpus", "counts", "share"), [(1, 1, 1 / 3), (2, 1, 1 / 2), (3, 1, 1.0), (8, 2, 1.0)])
def test_stages_share_the_gpus_so_that_every_actor_finds_one(gpus: int, counts: int, share: float) -> None:
    pools = choose_pools(OPEN, cluster(32, 32, gpus))
    assert {pool.count for pool in pools.values()} == {counts}
    assert {pool.gpus for pool in pools.values()} == {share}
    actors_a_gpu = int(1 / share + 1e-9)
    assert actors_a_gpu * gpus >= 3 * counts


def test_a_stage_can_have_what_the_others_have_not() -> None:
    wanted = {
        "features": Workers(device="cpu"),
        "segments": Workers(count=2, threads=3, device="cuda"),
        "descriptions": Workers(count=1, device="cpu"),
    }
    pools = choose_pools({stage: wanted[stage] for stage in STAGES}, cluster(16, 16, 1))
    assert (pools["segments"].count, pools["segments"].threads, pools["segments"].gpus) == (2, 3, 0.5)
    assert (pools["features"].count, pools["features"].gpus) == (7, 0.0)
    assert pools["descriptions"].count == 1


def test_a_gpu_that_has_yet_to_come_is_not_shared() -> None:
    pools = choose_pools({stage: Workers(device="cuda") for stage in STAGES}, cluster(4, 4, can_grow=True))
    assert {(pool.count, pool.gpus) for pool in pools.values()} == {(1, 1.0)}


def test_what_does_not_fit_is_refused_instead_of_waiting_for_ever() -> None:
    with pytest.raises(RunError, match="4 workers of 1 threads for features do not fit 4 CPUs beside decoding"):
        choose_pools({"features": Workers(count=4)}, cluster(4, 4))
    with pytest.raises(RunError, match="device cuda: there is no GPU here"):
        choose_pools({"features": Workers(device="cuda")}, cluster(4, 4))
