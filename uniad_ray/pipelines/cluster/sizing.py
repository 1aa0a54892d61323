"""Sizes workers: their number, and the threads, CPUs and GPUs of each.

Actors (`plan_actors`) run in parallel with decoding. Tasks (`plan_tasks`) wait in Ray's queue. The workers of a group
(`plan_group`) start all together or not at all. This module does not import Ray.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from uniad_ray.errors import RunError

MIN_LOGICAL_CPUS = 4
"""Ray Data reserves one CPU for an actor pool and one for its input; with one or two CPUs, some plans deadlock."""
MAX_THREADS = 8
"""A single fit or training does not speed up with more threads than this."""
DECODE_SHARE = 0.5
"""CPU shares of a decoding task, which waits for the store half of the time. The share must differ from that of an
actor: Ray Data would otherwise fuse the two stages and decode inside the actors while their GPU waits."""

NameT = TypeVar("NameT", bound=str)


@dataclass(frozen=True)
class Cluster:
    """Resources of a Ray cluster.

    Attributes:
        logical_cpus: CPUs in Ray's scheduler.
        physical_cpus: CPUs of the machines; fewer than `logical_cpus` on a small machine.
        gpus: Number of GPUs.
        node_cpus: CPUs of the largest node, or of the largest node with a GPU if there are GPUs. A task must fit on one
            node.
        can_grow: Whether nodes may be added for waiting work; true for a joined cluster.
    """

    logical_cpus: float
    physical_cpus: int
    gpus: int
    node_cpus: int
    can_grow: bool = False

    @property
    def described(self) -> str:
        """Returns the size in words, for messages."""
        gpus = f" and {_number(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{_number(self.physical_cpus, 'core')}{gpus}"

    @property
    def cpu_share(self) -> float:
        """Returns the CPUs that one thread of a task or actor requests, at most 1.

        Four shares always fit, even on a joined cluster with one or two CPUs; a pipeline of two stages needs them.
        """
        return min(1.0, self.logical_cpus / MIN_LOGICAL_CPUS)

    def uses_gpus(self, device: str) -> bool:
        """Returns whether work on a device gets GPUs.

        `auto` uses the GPUs of the cluster; `cuda` also waits for a GPU if the cluster can grow.

        Raises:
            RunError: `cuda` is requested, and the cluster has no GPU and cannot grow.
        """
        if device == "cuda" and not self.gpus and not self.can_grow:
            raise RunError("device cuda: no GPU found; use --device cpu or auto")
        return device == "cuda" or (self.gpus > 0 and device != "cpu")


@dataclass(frozen=True)
class Workers:
    """Requested workers; no score depends on them.

    Attributes:
        count: Number of actors or processes; None fits the cluster.
        threads: CPU threads of each; None fits the cluster.
        device: `cpu`, `cuda` or `auto`.
    """

    count: int | None = None
    threads: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class WorkerPlan:
    """Workers of a job and the resources of each.

    Attributes:
        count: Number of actors, processes or concurrent tasks.
        threads: CPU threads of each.
        cpus: CPUs that each requests from Ray.
        gpus: GPUs of each; below 1 if several share one.
        device: `cpu`, `cuda` or `auto`.
        at_first: Number of actors that fit the cluster as it is, if that is fewer; None if `count` fit.
    """

    count: int
    threads: int
    cpus: float
    gpus: float
    device: str
    at_first: int | None = None

    @property
    def pool(self) -> dict[str, int]:
        """Returns the arguments of Ray Data's `ActorPoolStrategy`.

        Actors that do not fit must not start before the cluster has grown: they would take the CPUs of decoding.
        """
        if self.at_first is None:
            return {"size": self.count}
        return {"min_size": self.at_first, "max_size": self.count}


def plan_actors(wanted: Mapping[NameT, Workers], cluster: Cluster) -> dict[NameT, WorkerPlan]:
    """Sizes the actor pools of a Ray Data pipeline to fit the cluster alongside decoding.

    Ray Data would deadlock if one pool did not fit. Pools on GPUs share the GPUs, with one actor per GPU. The others
    share about 90 % of the cores. Their actors have one thread each, which scales better than one actor with many
    threads. Every pool has at least one actor.

    Args:
        wanted: Requested workers, by name of the pool.
        cluster: Resources of the cluster.

    Raises:
        RunError: The actors do not fit, or a GPU is requested and none is available.
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
    _check_places(plans, places, cluster, shared_with=" alongside decoding")
    on_cpus = {name: plan for name, plan in plans.items() if name not in on_gpu}
    if sum(plan.count * plan.threads for plan in on_cpus.values()) > places:
        plans |= {
            name: replace(plan, at_first=min(plan.count, max(1, places // len(on_cpus) // plan.threads)))
            for name, plan in on_cpus.items()
        }
    return plans


def plan_tasks(tasks: int, device: str, cluster: Cluster) -> WorkerPlan:
    """Sizes tasks that use many cores or a GPU each, such as the fit of one category.

    Any number of tasks is accepted; they wait until resources are free.

    Args:
        tasks: Number of tasks.
        device: `cpu`, `cuda` or `auto`.
        cluster: Resources of the cluster.

    Raises:
        RunError: A GPU is requested and none is available.
    """
    return _shared_out(tasks, Workers(device=device), cluster)


def plan_group(jobs: int, wanted: Workers, cluster: Cluster) -> WorkerPlan:
    """Sizes processes that start together: by default one per job, up to the number of GPUs or CPUs.

    Args:
        jobs: Number of trainings.
        wanted: Requested workers. The number of threads changes the last digits of a result.
        cluster: Resources of the cluster.

    Raises:
        RunError: The processes do not fit, or a GPU is requested and none is available.
    """
    plan = _shared_out(jobs, wanted, cluster)
    _check_places({"training": plan}, int(cluster.logical_cpus / cluster.cpu_share), cluster)
    return plan


def actors_reason(plan: WorkerPlan, wanted: Workers, cluster: Cluster, pools: int = 1) -> str:
    """Returns in words how many actors a pool has, and why.

    Args:
        plan: Result of `plan_actors`.
        wanted: What was requested.
        cluster: Resources of the cluster.
        pools: Number of pools in the same pipeline.
    """
    if wanted.count is not None:
        reason = "as requested"
        if plan.at_first is not None:
            reason += f"; {plan.at_first} on the {cluster.described} that there are, and more when the cluster grows"
    elif plan.gpus:
        reason = f"one per GPU, of {_number(cluster.gpus, 'GPU')}"
    else:
        shared = f" are shared by {pools} stages" if pools > 1 else ""
        reason = f"about 90 % of {_number(cluster.physical_cpus, 'core')}{shared}; the rest decodes"
    return f"{_sized(plan, 'actor')}: {reason}"


def tasks_reason(plan: WorkerPlan, work: int, wanted: Workers, cluster: Cluster) -> str:
    """Returns in words how many tasks or processes run at once, and why.

    Args:
        plan: Result of `plan_tasks` or `plan_group`.
        work: Number of pieces of work.
        wanted: What was requested.
        cluster: Resources of the cluster.
    """
    reason = "as requested" if wanted.count is not None else f"{_number(work, 'job')} on {cluster.described}"
    return f"{_sized(plan, 'process', 'processes')} at once: {reason}"


def _sized(plan: WorkerPlan, noun: str, nouns: str = "") -> str:
    each = " each" if plan.count > 1 else ""
    count = f"{plan.count} {nouns}" if nouns and plan.count != 1 else _number(plan.count, noun)
    return f"{count} with {_number(plan.threads, 'thread')}{each}"


def _shared_out(work: int, wanted: Workers, cluster: Cluster) -> WorkerPlan:
    """Plans one worker per piece of work, up to the number of GPUs or CPUs; their threads share the CPUs.

    The threads of a worker are capped at the CPUs of one node, since it must fit on one.
    """
    uses_gpus = cluster.uses_gpus(wanted.device)
    count = wanted.count or max(1, min(work, cluster.gpus if uses_gpus else cluster.physical_cpus))
    threads = wanted.threads or max(1, min(MAX_THREADS, cluster.node_cpus, cluster.physical_cpus // count))
    return WorkerPlan(count, threads, threads * cluster.cpu_share, 1.0 if uses_gpus else 0.0, wanted.device)


def _gpus_of_each(actors: int, pools: Collection[str], cluster: Cluster) -> float:
    """Returns the GPUs of each actor; several actors share one if there are fewer GPUs than actors.

    Without GPUs yet, the number of future GPUs is unknown, and none is shared. A single pool waits for its GPUs.
    """
    if not cluster.gpus or (cluster.can_grow and len(pools) == 1):
        return 1.0
    return 1 / max(1, math.ceil(actors / cluster.gpus))


def _check_places(plans: Mapping[NameT, WorkerPlan], places: int, cluster: Cluster, shared_with: str = "") -> None:
    """Checks that all threads fit, unless the cluster can grow.

    Raises:
        RunError: There are more threads than places.
    """
    if cluster.can_grow or sum(plan.count * plan.threads for plan in plans.values()) <= places:
        return
    asked = " and ".join(
        f"{_number(plan.count, 'worker')} with {_number(plan.threads, 'thread')} for {name}"
        for name, plan in plans.items()
    )
    raise RunError(
        f"{asked}: do not fit on {cluster.logical_cpus:g} CPUs{shared_with}; "
        f"use at most {_number(places, 'thread')} in total"
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
