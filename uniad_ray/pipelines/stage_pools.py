"""How the stages of an annotation share a cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from uniad_ray.errors import RunError
from uniad_ray.perception.field_rows import Stage
from uniad_ray.pipelines.decoding import DECODE_CPUS
from uniad_ray.pipelines.ray_session import Cluster
from uniad_ray.pipelines.score import Workers


@dataclass(frozen=True)
class Pool:
    """The actors of one stage.

    Attributes:
        count: Number of actors.
        threads: Threads of each on the CPU.
        device: `cpu`, `cuda` or `auto`.
        gpus: GPUs of each, less than 1 where several share one.
    """

    count: int
    threads: int
    device: str
    gpus: float


def choose_pools(wanted: Mapping[Stage, Workers], cluster: Cluster) -> dict[Stage, Pool]:
    """Fills in what the user left open, so that the actors of all stages and what feeds them fit side by side.

    Ray Data would wait for ever where one pool finds no place. Stages on GPUs share those that there are; the others
    share about nine tenths of the cores, with one actor each at the least.

    Raises:
        RunError: The actors that were asked for do not fit, or a GPU is asked for and cannot come.
    """
    on_gpu = {stage for stage, workers in wanted.items() if cluster.uses_gpus(workers.device)}
    places = int(cluster.logical_cpus / cluster.cpu_share - DECODE_CPUS)
    cores = min(round(cluster.physical_cpus * 0.9), places)

    def count(stage: Stage, threads: int) -> int:
        sharing = len(on_gpu) if stage in on_gpu else len(wanted) - len(on_gpu)
        return max(1, (cluster.gpus if stage in on_gpu else cores // threads) // sharing)

    counts = {stage: workers.count or count(stage, workers.threads or 1) for stage, workers in wanted.items()}
    # Of GPUs that have yet to come nobody knows how many there will be, and so none is shared.
    actors_a_gpu = math.ceil(sum(counts[stage] for stage in on_gpu) / cluster.gpus) if cluster.gpus else 1
    pools = {
        stage: Pool(
            count=counts[stage],
            threads=workers.threads or 1,
            device=workers.device,
            gpus=1 / actors_a_gpu if stage in on_gpu else 0.0,
        )
        for stage, workers in wanted.items()
    }
    if sum(pool.count * pool.threads for pool in pools.values()) > places and not cluster.can_grow:
        asked = ", ".join(f"{pool.count} workers of {pool.threads} threads for {name}" for name, pool in pools.items())
        raise RunError(f"{asked} do not fit {cluster.logical_cpus:g} CPUs beside decoding; use fewer of them")
    return pools
