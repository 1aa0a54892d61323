from __future__ import annotations

import subprocess
import sys

import pytest

from uniad_ray.errors import RunError
from uniad_ray.pipelines.cluster.sizing import (
    DECODE_SHARE,
    Cluster,
    WorkerPlan,
    Workers,
    actors_reason,
    plan_actors,
    plan_group,
    plan_tasks,
    tasks_reason,
)

STAGES = ("features", "segments", "descriptions")


def cluster(logical: float, physical: int | None = None, gpus: int = 0, *, can_grow: bool = False) -> Cluster:
    cpus = max(1, int(logical))
    return Cluster(logical, physical or cpus, gpus, node_cpus=cpus, can_grow=can_grow)


TWO_CORES = cluster(4, 2)
"""A local Ray on two cores; see `local_cpus`."""
ONE_CPU = cluster(1)
LAPTOP = cluster(16)
GPU_NODE = cluster(32, gpus=2)
WAITING_FOR_GPUS = cluster(4, can_grow=True)


def scoring(wanted: Workers, found: Cluster) -> WorkerPlan:
    return plan_actors({"scoring": wanted}, found)["scoring"]


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (TWO_CORES, Workers(), (2, 1, 1.0, 0.0)),
        (TWO_CORES, Workers(threads=2), (1, 2, 2.0, 0.0)),
        (ONE_CPU, Workers(), (1, 1, 0.25, 0.0)),
        (cluster(2), Workers(), (2, 1, 0.5, 0.0)),
        (cluster(2), Workers(count=3), (3, 1, 0.5, 0.0)),
        (cluster(0.5), Workers(), (1, 1, 0.125, 0.0)),
        (cluster(4), Workers(), (3, 1, 1.0, 0.0)),
        (LAPTOP, Workers(), (14, 1, 1.0, 0.0)),
        (LAPTOP, Workers(threads=4), (3, 4, 4.0, 0.0)),
        (LAPTOP, Workers(count=5, threads=3), (5, 3, 3.0, 0.0)),
        (GPU_NODE, Workers(), (2, 1, 1.0, 1.0)),
        (GPU_NODE, Workers(device="cuda"), (2, 1, 1.0, 1.0)),
        (GPU_NODE, Workers(device="cpu"), (29, 1, 1.0, 0.0)),
        (GPU_NODE, Workers(count=4), (4, 1, 1.0, 0.5)),
        (WAITING_FOR_GPUS, Workers(), (3, 1, 1.0, 0.0)),
        (WAITING_FOR_GPUS, Workers(device="cuda"), (1, 1, 1.0, 1.0)),
        (WAITING_FOR_GPUS, Workers(count=4, device="cuda"), (4, 1, 1.0, 1.0)),
        (cluster(16, gpus=1, can_grow=True), Workers(count=4), (4, 1, 1.0, 1.0)),
        (WAITING_FOR_GPUS, Workers(count=9), (9, 1, 1.0, 0.0)),
    ],
)
def test_one_pool_of_actors(found: Cluster, wanted: Workers, expected: tuple[int, int, float, float]) -> None:
    plan = scoring(wanted, found)
    assert (plan.count, plan.threads, plan.cpus, plan.gpus) == expected
    assert plan.device == wanted.device


@pytest.mark.parametrize("logical", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("physical", [1, 2, 8, 64])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_default_pools_and_decoding_always_fit(logical: int, physical: int, stages: int) -> None:
    found = cluster(logical, min(logical, physical))
    plans = plan_actors({stage: Workers() for stage in STAGES[:stages]}, found).values()
    assert len(plans) == stages
    assert min(plan.count for plan in plans) >= 1
    assert sum(plan.count * plan.cpus for plan in plans) + DECODE_SHARE * found.cpu_share <= logical
    assert {plan.gpus for plan in plans} == {0.0}


@pytest.mark.parametrize(("gpus", "count", "share"), [(1, 1, 1 / 3), (2, 1, 1 / 2), (3, 1, 1.0), (8, 2, 1.0)])
def test_pools_share_the_gpus(gpus: int, count: int, share: float) -> None:
    plans = plan_actors(dict.fromkeys(STAGES, Workers()), cluster(32, gpus=gpus)).values()
    assert {(plan.count, plan.gpus) for plan in plans} == {(count, share)}
    actors_a_gpu = int(1 / share + 1e-9)
    assert actors_a_gpu * gpus >= 3 * count


def test_pools_of_a_growing_cluster_share_its_gpus() -> None:
    plans = plan_actors(dict.fromkeys(STAGES, Workers()), cluster(8, gpus=1, can_grow=True)).values()
    assert {(plan.count, plan.gpus) for plan in plans} == {(1, 1 / 3)}


def test_future_gpus_are_not_shared() -> None:
    plans = plan_actors(dict.fromkeys(STAGES, Workers(device="cuda")), WAITING_FOR_GPUS).values()
    assert {(plan.count, plan.gpus) for plan in plans} == {(1, 1.0)}


def test_pools_may_differ() -> None:
    plans = plan_actors(
        {
            "features": Workers(device="cpu"),
            "segments": Workers(count=2, threads=3, device="cuda"),
            "descriptions": Workers(count=1, device="cpu"),
        },
        cluster(16, gpus=1),
    )
    assert plans == {
        "features": WorkerPlan(7, 1, 1.0, 0.0, "cpu"),
        "segments": WorkerPlan(2, 3, 3.0, 0.5, "cuda"),
        "descriptions": WorkerPlan(1, 1, 1.0, 0.0, "cpu"),
    }


@pytest.mark.parametrize(
    ("found", "jobs", "wanted", "expected"),
    [
        (TWO_CORES, 1, Workers(), (1, 2, 2.0, 0.0)),
        (TWO_CORES, 5, Workers(), (2, 1, 1.0, 0.0)),
        (TWO_CORES, 5, Workers(count=2, threads=2), (2, 2, 2.0, 0.0)),
        (ONE_CPU, 3, Workers(), (1, 1, 0.25, 0.0)),
        (ONE_CPU, 3, Workers(count=4), (4, 1, 0.25, 0.0)),
        (LAPTOP, 3, Workers(), (3, 5, 5.0, 0.0)),
        (LAPTOP, 1, Workers(), (1, 8, 8.0, 0.0)),
        (GPU_NODE, 9, Workers(), (2, 8, 8.0, 1.0)),
        (GPU_NODE, 1, Workers(), (1, 8, 8.0, 1.0)),
        (GPU_NODE, 9, Workers(device="cpu"), (9, 3, 3.0, 0.0)),
        (WAITING_FOR_GPUS, 9, Workers(device="cuda"), (1, 4, 4.0, 1.0)),
        (WAITING_FOR_GPUS, 9, Workers(count=3, threads=4), (3, 4, 4.0, 0.0)),
    ],
)
def test_group_of_processes(
    found: Cluster, jobs: int, wanted: Workers, expected: tuple[int, int, float, float]
) -> None:
    plan = plan_group(jobs, wanted, found)
    assert (plan.count, plan.threads, plan.cpus, plan.gpus) == expected
    assert plan.device == wanted.device


@pytest.mark.parametrize(
    ("tasks", "node_cpus", "nodes", "expected"),
    [(0, 4, 1, 4), (1, 2, 2, 2), (1, 16, 4, 8), (1, 4, 1, 4), (3, 4, 2, 2), (99, 8, 2, 1)],
)
def test_task_fits_one_node(tasks: int, node_cpus: int, nodes: int, expected: int) -> None:
    cpus = node_cpus * nodes
    plan = plan_tasks(tasks, "auto", Cluster(logical_cpus=cpus, physical_cpus=cpus, gpus=0, node_cpus=node_cpus))
    assert (plan.threads, plan.cpus, plan.gpus) == (expected, expected, 0.0)


def test_tasks_wait_for_a_gpu_each() -> None:
    found = cluster(4, gpus=8)
    assert plan_tasks(20, "auto", found) == WorkerPlan(8, 1, 1.0, 1.0, "auto")
    assert plan_tasks(20, "cpu", found) == WorkerPlan(4, 1, 1.0, 0.0, "cpu")
    assert plan_tasks(20, "auto", GPU_NODE).threads == 8


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            Workers(count=5),
            "5 workers with 1 thread for scoring: do not fit on 4 CPUs alongside decoding; use at most 3",
        ),
        (
            Workers(threads=8),
            "1 worker with 8 threads for scoring: do not fit on 4 CPUs alongside decoding; use at most 3",
        ),
        (Workers(device="cuda"), "device cuda: no GPU found; use --device cpu or auto"),
    ],
)
def test_oversized_actors_are_refused(wanted: Workers, message: str) -> None:
    with pytest.raises(RunError, match=message):
        scoring(wanted, cluster(4))


def test_message_names_every_pool() -> None:
    with pytest.raises(RunError) as caught:
        plan_actors({"features": Workers(count=4), "segments": Workers(threads=2)}, cluster(4))
    assert str(caught.value) == (
        "4 workers with 1 thread for features and 1 worker with 2 threads for segments: "
        "do not fit on 4 CPUs alongside decoding; use at most 3 threads in total"
    )


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        (
            TWO_CORES,
            Workers(count=3, threads=2),
            "3 workers with 2 threads for training: do not fit on 4 CPUs; use at m",
        ),
        (
            ONE_CPU,
            Workers(count=5),
            "5 workers with 1 thread for training: do not fit on 1 CPUs; use at most 4 threads",
        ),
        (cluster(4, gpus=8), Workers(), "8 workers with 1 thread for training: do not fit on 4 CPUs; use at most 4"),
        (LAPTOP, Workers(device="cuda"), "device cuda: no GPU found"),
    ],
)
def test_oversized_group_is_refused(found: Cluster, wanted: Workers, message: str) -> None:
    with pytest.raises(RunError, match=message):
        plan_group(8, wanted, found)


def test_future_gpus_are_requested_by_name() -> None:
    assert WAITING_FOR_GPUS.uses_gpus("cuda")
    assert not WAITING_FOR_GPUS.uses_gpus("auto")


def test_sizing_imports_no_ray() -> None:
    code = "import sys, uniad_ray.pipelines.cluster.sizing; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (cluster(8), Workers(), "7 actors with 1 thread each: about 90 % of 8 cores; the rest decodes"),
        (cluster(8), Workers(count=2, threads=3), "2 actors with 3 threads each: as requested"),
        (ONE_CPU, Workers(), "1 actor with 1 thread: about 90 % of 1 core; the rest decodes"),
        (GPU_NODE, Workers(), "2 actors with 1 thread each: one per GPU, of 2 GPUs"),
        (
            cluster(4, can_grow=True),
            Workers(count=9),
            "9 actors with 1 thread each: as requested; "
            "3 on the 4 cores that there are, and more when the cluster grows",
        ),
    ],
)
def test_number_of_actors_is_explained(found: Cluster, wanted: Workers, expected: str) -> None:
    assert actors_reason(scoring(wanted, found), wanted, found) == expected


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (cluster(4), Workers(count=3), {"size": 3}),
        (cluster(4, can_grow=True), Workers(count=3), {"size": 3}),
        (cluster(4, can_grow=True), Workers(count=9), {"min_size": 3, "max_size": 9}),
        (cluster(4, can_grow=True), Workers(count=9, threads=2), {"min_size": 1, "max_size": 9}),
        (cluster(1, can_grow=True), Workers(count=9), {"min_size": 3, "max_size": 9}),
        (cluster(1, can_grow=True), Workers(count=2, threads=8), {"min_size": 1, "max_size": 2}),
        # Actors that wait for a GPU take no CPU.
        (cluster(4, can_grow=True), Workers(count=9, device="cuda"), {"size": 9}),
    ],
)
def test_actors_start_where_there_is_room(found: Cluster, wanted: Workers, expected: dict[str, int]) -> None:
    assert scoring(wanted, found).pool == expected


def test_shared_cores_are_explained() -> None:
    plans = plan_actors({stage: Workers() for stage in STAGES}, LAPTOP)

    assert actors_reason(plans["segments"], Workers(), LAPTOP, len(plans)) == (
        "4 actors with 1 thread each: about 90 % of 16 cores are shared by 3 stages; the rest decodes"
    )


@pytest.mark.parametrize(
    ("jobs", "found", "wanted", "expected"),
    [
        (1, TWO_CORES, Workers(), "1 process with 2 threads at once: 1 job on 2 cores"),
        (5, GPU_NODE, Workers(), "2 processes with 8 threads each at once: 5 jobs on 32 cores and 2 GPUs"),
        (5, LAPTOP, Workers(count=3), "3 processes with 5 threads each at once: as requested"),
    ],
)
def test_number_of_processes_is_explained(jobs: int, found: Cluster, wanted: Workers, expected: str) -> None:
    assert tasks_reason(plan_group(jobs, wanted, found), jobs, wanted, found) == expected
