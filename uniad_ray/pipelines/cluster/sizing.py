"""Sizes workers: how many, with how many threads, CPUs and GPUs each, from what a cluster has and what a user asks for.

Actors (`plan_actors`) run side by side with decoding. Tasks (`plan_tasks`) wait in Ray's queue for their turn. A group
(`plan_group`) starts together or not at all. This file imports no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from uniad_ray.errors import RunError

MIN_LOGICAL_CPUS = 4
"""Ray Data keeps a CPU for an actor pool and one for what feeds it; with one or two, some plans wait for ever."""
MAX_THREADS = 8
"""More threads than this do not make one fit or training faster."""
DECODE_SHARE = 0.5
"""CPU shares of a decoding task: it waits for the store half of its time. Asking for other than an actor also keeps
Ray Data from fusing the two stages, which would decode inside the actors, on GPU machines while the GPU waits."""

NameT = TypeVar("NameT", bound=str)


@dataclass(frozen=True)
class Cluster:
    """What there is to work with.

    Attributes:
        logical_cpus: CPUs that Ray schedules by.
        physical_cpus: CPUs that the machines have; fewer than `logical_cpus` on a small machine.
        gpus: GPUs.
        node_cpus: CPUs of the largest node; of the largest with a GPU, where there are GPUs. A task must fit one node.
        can_grow: Whether nodes may come for work that waits: the cluster was joined, not started here.
    """

    logical_cpus: float
    physical_cpus: int
    gpus: int
    node_cpus: int
    can_grow: bool = False

    @property
    def cpu_share(self) -> float:
        """CPUs that one thread of a task or actor asks for, so that a pipeline of two stages always fits.

        A joined cluster may have one or two CPUs; four shares then still fit side by side.
        """
        return min(1.0, self.logical_cpus / MIN_LOGICAL_CPUS)

    def uses_gpus(self, device: str) -> bool:
        """Whether work for a device is given GPUs: those there are, or, asked for by name, those that may come.

        Raises:
            RunError: `cuda` is asked for, there is none and none can come.
        """
        if device == "cuda" and not self.gpus and not self.can_grow:
            raise RunError("device cuda: there is no GPU here; use --device cpu or auto")
        return device == "cuda" or (self.gpus > 0 and device != "cpu")


@dataclass(frozen=True)
class Workers:
    """What a user asks for; no score depends on it.

    Attributes:
        count: Actors or processes; None chooses by the cluster.
        threads: Threads of each on the CPU; None chooses by the cluster.
        device: `cpu`, `cuda` or `auto`.
    """

    count: int | None = None
    threads: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class WorkerPlan:
    """How some work uses the cluster.

    Attributes:
        count: Actors or processes; of tasks, those that run side by side.
        threads: Threads of each on the CPU.
        cpus: CPUs that each asks of Ray.
        gpus: GPUs of each; less than 1 where several share one.
        device: `cpu`, `cuda` or `auto`.
    """

    count: int
    threads: int
    cpus: float
    gpus: float
    device: str


def plan_actors(wanted: Mapping[NameT, Workers], cluster: Cluster) -> dict[NameT, WorkerPlan]:
    """Sizes the actor pools of a Ray Data pipeline, so that all of them and decoding fit side by side.

    Ray Data would wait for ever if one pool found no place. Pools on GPUs share the GPUs, with one actor for each GPU.
    The others share about nine tenths of the cores. Their actors have one thread: that scales better than one actor
    with many threads. Every pool has at least one actor.

    Args:
        wanted: What the user asks for, by name of the pool.
        cluster: What there is to work with.

    Raises:
        RunError: The actors do not fit, or a GPU is asked for and cannot come.
    """
    on_gpu = {name for name, workers in wanted.items() if cluster.uses_gpus(workers.device)}
    places = int(cluster.logical_cpus / cluster.cpu_share - DECODE_SHARE)
    cores = min(round(cluster.physical_cpus * 0.9), places)

    def count(name: NameT, threads: int) -> int:
        sharing = len(on_gpu) if name in on_gpu else len(wanted) - len(on_gpu)
        return max(1, (cluster.gpus if name in on_gpu else cores // threads) // sharing)

    threads = {name: workers.threads or 1 for name, workers in wanted.items()}
    counts = {name: workers.count or count(name, threads[name]) for name, workers in wanted.items()}
    gpus = _gpus_of_each(sum(counts[name] for name in on_gpu), on_gpu, cluster)
    plans = {
        name: WorkerPlan(
            count=counts[name],
            threads=threads[name],
            cpus=threads[name] * cluster.cpu_share,
            gpus=gpus if name in on_gpu else 0.0,
            device=workers.device,
        )
        for name, workers in wanted.items()
    }
    _check_places(plans, places, cluster, beside=" beside decoding")
    return plans


def plan_tasks(tasks: int, device: str, cluster: Cluster) -> WorkerPlan:
    """Sizes tasks that each use the cores or the GPU of a whole node's share, such as the fit of one category.

    Tasks that find no place wait for one, so nothing is refused.

    Args:
        tasks: How many there are.
        device: `cpu`, `cuda` or `auto`.
        cluster: What there is to work with.

    Raises:
        RunError: A GPU is asked for and cannot come.
    """
    return _shared_out(tasks, Workers(device=device), cluster)


def plan_group(jobs: int, wanted: Workers, cluster: Cluster) -> WorkerPlan:
    """Sizes processes that start together, one for each job as far as there are GPUs or CPUs.

    Args:
        jobs: Trainings to run.
        wanted: What the user asks for. With other threads a result differs in its last digits.
        cluster: What there is to work with.

    Raises:
        RunError: The processes do not fit, or a GPU is asked for and cannot come.
    """
    plan = _shared_out(jobs, wanted, cluster)
    _check_places({"training": plan}, int(cluster.logical_cpus / cluster.cpu_share), cluster)
    return plan


def _shared_out(work: int, wanted: Workers, cluster: Cluster) -> WorkerPlan:
    """One worker for each piece of work as far as there are GPUs or CPUs; their threads share the CPUs.

    A worker has no more threads than one node has CPUs, since it must fit on one.
    """
    uses_gpus = cluster.uses_gpus(wanted.device)
    count = wanted.count or max(1, min(work, cluster.gpus if uses_gpus else cluster.physical_cpus))
    threads = wanted.threads or max(1, min(MAX_THREADS, cluster.node_cpus, cluster.physical_cpus // count))
    return WorkerPlan(count, threads, threads * cluster.cpu_share, 1.0 if uses_gpus else 0.0, wanted.device)


def _gpus_of_each(actors: int, pools: Collection[str], cluster: Cluster) -> float:
    """GPUs of each actor: several share one where there are fewer GPUs than actors.

    Nothing is known of GPUs that have yet to come, so none is shared if there is none. A single pool waits for them.
    """
    if not cluster.gpus or (cluster.can_grow and len(pools) == 1):
        return 1.0
    return 1 / max(1, math.ceil(actors / cluster.gpus))


def _check_places(plans: Mapping[NameT, WorkerPlan], places: int, cluster: Cluster, beside: str = "") -> None:
    """Refuses more threads than there are places for, unless nodes may come."""
    if cluster.can_grow or sum(plan.count * plan.threads for plan in plans.values()) <= places:
        return
    asked = " and ".join(
        f"{_number(plan.count, 'worker')} with {_number(plan.threads, 'thread')} for {name}"
        for name, plan in plans.items()
    )
    raise RunError(
        f"{asked}: do not fit {cluster.logical_cpus:g} CPUs{beside}; use at most {_number(places, 'thread')} in all"
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
