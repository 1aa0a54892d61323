"""Runs all checks; one that fails does not keep the others from running."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from uniad_ray import __version__
from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import load_config
from uniad_ray.errors import UserError
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.pipelines.doctor.checks import Check, failed, from_error, passed, warned
from uniad_ray.pipelines.doctor.machine import (
    Machine,
    agreement_checks,
    clock_check,
    machine_checks,
    this_machine,
)
from uniad_ray.pipelines.doctor.stores import store_checks

NODE_SECONDS: Final = 60.0
"""A node that runs no small task within this time cannot work, or is busy."""


class DoctorReport(StrictModel):
    """The results of all checks.

    Attributes:
        code_version: Version of uniad_ray.
        checks: The checks, in the order in which they ran.
        failures: Number of failed checks.
        warnings: Number of checks with a warning.
    """

    code_version: str
    checks: tuple[Check, ...]
    failures: int
    warnings: int


def doctor(
    *,
    stores: Sequence[str] = (),
    sources: Sequence[str] = (),
    profile: str = "embedded",
    overrides: Sequence[str] = (),
    device: str = "auto",
    address: str | None = None,
) -> DoctorReport:
    """Checks this machine, a cluster and stores.

    Args:
        stores: Folders or prefixes to read and write; a small object is written and deleted.
        sources: Folders or prefixes to read only.
        profile: A profile's name, or a YAML file; its networks are loaded.
        overrides: Assignments such as `expert_set=patch`.
        device: `auto`, `cpu` or `cuda`; `cuda` makes a missing GPU a failure.
        address: Ray cluster to join; by default, Ray starts on this machine.
    """
    checks = [
        *_machines(device, address or os.environ.get("RAY_ADDRESS")),
        _weights_check(profile, overrides),
        *(check for uri in stores for check in store_checks(uri, write=True)),
        *(check for uri in sources for check in store_checks(uri, write=False)),
    ]
    return DoctorReport(
        code_version=__version__,
        checks=tuple(checks),
        failures=sum(check.status == "failed" for check in checks),
        warnings=sum(check.status == "warning" for check in checks),
    )


def _machines(device: str, address: str | None) -> Iterator[Check]:
    """Checks this machine, starts or joins Ray, and checks its other nodes."""
    driver = this_machine()
    # The nodes of a cluster do the work, so a GPU is required there.
    yield from machine_checks(driver, device="auto" if address else device)
    started = time.monotonic()
    try:
        with ray_session(address) as cluster:
            seconds = time.monotonic() - started
            verb = "joined" if address else "started"
            yield passed("Ray", f"{verb} in {seconds:.1f} s: {cluster.logical_cpus:g} CPUs, {cluster.gpus} GPUs")
            yield from _nodes(driver, device if address else None)
    except UserError as error:
        yield from_error("Ray", error)


def _nodes(driver: Machine, device: str | None) -> Iterator[Check]:
    """Runs a task on each node; a device of None means that the only node is this machine, which is checked already."""
    import ray

    machines = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        name, gpus = node["NodeManagerHostname"], int(node["Resources"].get("GPU", 0))
        sent = time.time()
        try:
            machine = _on_node(node["NodeID"], gpus)
        except ray.exceptions.GetTimeoutError:
            advice = "look at `ray status`; if the node is only busy, run this again"
            yield warned("node", f"ran no task within {NODE_SECONDS:g} s", advice, name)
            continue
        except ray.exceptions.RayError as error:
            advice = "install uniad_ray on the node with the versions of requirements.lock, and look at its logs"
            yield failed("node", str(error).strip().splitlines()[-1][:300], advice, name)
            continue
        machines.append(machine)
        if device is None:
            yield passed("node", "ran a task", name)
            continue
        yield from machine_checks(machine, device=device, with_gpu=bool(gpus))
        yield clock_check((sent + time.time()) / 2 - machine.clock, "the node", name, most=NODE_SECONDS)
    yield from agreement_checks(driver, machines)
    if device == "cuda" and not any(machine.gpus for machine in machines):
        yield failed("GPU", "no node has one", "add a node with a GPU, or use --device cpu")


def _on_node(node_id: str, gpus: int) -> Machine:
    """Gathers the facts of a node in a task on it, with all its GPUs."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(this_machine).options(
        num_cpus=0,
        num_gpus=gpus,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    reference = task.remote()
    try:
        machine: Machine = ray.get(reference, timeout=NODE_SECONDS)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        raise
    return machine


def _weights_check(profile: str, overrides: Sequence[str]) -> Check:
    """Loads the networks of a profile on the CPU."""
    from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

    started = time.monotonic()
    try:
        config = load_config(profile, overrides)
        pipeline = build_pipeline(config, needs_of(build_experts(config)), device="cpu", check_unused=False)
    except UserError as error:
        return from_error("weights", error, profile)
    names = ", ".join(extractor.name for extractor in pipeline.extractors)
    return passed("weights", f"loaded in {time.monotonic() - started:.1f} s: {names}", profile)
