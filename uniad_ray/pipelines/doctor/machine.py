"""Facts of one machine, and what they mean for the work. No Ray: the facts are also gathered in a task on each node."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from uniad_ray import __version__
from uniad_ray.pipelines.doctor.checks import Check, failed, passed, warned

_GIB: Final = 1 << 30
MIN_MEMORY: Final = 4 * _GIB
MEMORY_PER_CPU: Final = 2 * _GIB
"""A worker has one thread and takes 1.3 to 1.4 GiB, nearly all of it libraries; the rest is for images and Ray."""
MIN_DISK: Final = 5 * _GIB
GOOD_DISK: Final = 20 * _GIB
"""Ray spills objects to its temporary folder, and stops tasks if the disk is 95 % full."""
MIN_SHARED_MEMORY: Final = _GIB
MAX_CLOCK_SECONDS: Final = 5.0
_PACKAGE: Final = "uniad-ray"
_PYTHONS: Final = ((3, 11), (3, 12))
_NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True)
class Machine:
    """Facts of one machine.

    Attributes:
        host: Its name.
        python: Version of Python, `major.minor.micro`.
        package: Version of uniad_ray.
        ray: Version of Ray; empty if it is missing.
        missing: Required packages that are missing or of another version, each as a sentence.
        cpus: CPUs that a process may use.
        memory: Bytes of memory, or of the container's limit.
        disk: Free bytes of the folder of temporary files.
        shared_memory: Free bytes of `/dev/shm`; None if there is none.
        nvidia: Whether the machine has an NVIDIA device.
        gpus: Name and bytes of memory of each GPU that torch can use.
        gpu_problem: Why torch cannot use a GPU that is there.
        clock: Seconds since the epoch.
    """

    host: str
    python: str
    package: str
    ray: str
    missing: tuple[str, ...]
    cpus: int
    memory: int
    disk: int
    shared_memory: int | None
    nvidia: bool
    gpus: tuple[tuple[str, int], ...]
    gpu_problem: str | None
    clock: float


def this_machine() -> Machine:
    """Gathers the facts of the machine that runs this."""
    shared = Path("/dev/shm")  # noqa: S108 - only its free space is read
    nvidia = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
    gpus, problem = _gpus()
    return Machine(
        host=socket.gethostname(),
        python=platform.python_version(),
        package=__version__,
        ray=_version("ray") or "",
        missing=tuple(_missing(metadata.requires(_PACKAGE) or ())),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        disk=free_bytes(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())),
        shared_memory=shutil.disk_usage(shared).free if shared.is_dir() else None,
        nvidia=nvidia,
        gpus=gpus,
        gpu_problem=problem,
        clock=time.time(),
    )


def machine_checks(machine: Machine, *, device: str = "auto", with_gpu: bool = True) -> Iterator[Check]:
    """Judges the facts of one machine.

    Args:
        machine: The facts.
        device: `cuda` makes a missing GPU a failure.
        with_gpu: Whether the GPU was looked at; Ray hides it from tasks that asked for none.
    """
    yield _version_check(machine)
    yield _memory_check(machine)
    yield from _disk_checks(machine)
    if with_gpu:
        yield _gpu_check(machine, device)


def agreement_checks(driver: Machine, nodes: Sequence[Machine]) -> Iterator[Check]:
    """Compares the versions of the nodes of a cluster with those of this machine."""
    for node in nodes:
        # Ray compares Python only up to the minor version, but a task is pickled code of one version of this package.
        pairs = (
            ("Python", _minor(driver.python), _minor(node.python)),
            ("uniad_ray", driver.package, node.package),
            ("Ray", driver.ray, node.ray),
        )
        wrong = [f"{what} {theirs} instead of {own}" for what, own, theirs in pairs if own != theirs]
        if wrong:
            advice = "install the same versions on all machines: the same image, or requirements.lock"
            yield failed("versions agree", ", ".join(wrong), advice, node.host)
    if nodes and all((_minor(node.python), node.package, node.ray) == _versions(driver) for node in nodes):
        yield passed("versions agree", f"{len(nodes)} nodes have the versions of this machine")


def clock_check(seconds: float, against: str, where: str = "", *, most: float = MAX_CLOCK_SECONDS) -> Check:
    """Judges how far this machine's clock is ahead.

    Args:
        seconds: This clock minus the other one.
        against: What the clock was compared with.
        where: Machine or store of the other clock.
        most: Deviation in seconds from which on the check fails.
    """
    found = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} {against}"
    if abs(seconds) > most:
        return failed("clock", found, "synchronise the clocks: start chrony or systemd-timesyncd on both", where)
    return passed("clock", f"within {most:g} s of {against}", where)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder, which need not exist: Ray creates its temporary folder."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def gib(count: int) -> str:
    """Bytes as GiB, such as `14.9 GiB`."""
    return f"{count / _GIB:.1f} GiB"


def _version_check(machine: Machine) -> Check:
    found = f"Python {machine.python}, uniad_ray {machine.package}, Ray {machine.ray or 'missing'}"
    if not any(machine.python.startswith(f"{major}.{minor}.") for major, minor in _PYTHONS):
        return failed("versions", found, "use Python 3.11 or 3.12", machine.host)
    if machine.missing:
        wrong = f"{found}; {'; '.join(machine.missing[:5])}"
        return failed("versions", wrong, "run `pip install -c requirements.lock .` in a checkout", machine.host)
    return passed("versions", found, machine.host)


def _memory_check(machine: Machine) -> Check:
    found = f"{gib(machine.memory)} for {machine.cpus} CPUs"
    if machine.memory < MIN_MEMORY:
        advice = f"use a machine, or a limit of the container, of at least {gib(MIN_MEMORY)}"
        return failed("memory", found, advice, machine.host)
    if machine.memory < MEMORY_PER_CPU * machine.cpus:
        workers = max(1, machine.memory // MEMORY_PER_CPU)
        advice = f"limit `fit` and `score` to --workers {workers}, or add memory: {gib(MEMORY_PER_CPU)} a CPU"
        return warned("memory", found, advice, machine.host)
    return passed("memory", found, machine.host)


def _disk_checks(machine: Machine) -> Iterator[Check]:
    found = f"{gib(machine.disk)} free for temporary files"
    advice = "free space, or set RAY_TMPDIR and TMPDIR to a larger disk"
    if machine.disk < MIN_DISK:
        yield failed("disk", found, advice, machine.host)
    elif machine.disk < GOOD_DISK:
        yield warned("disk", found, f"{advice}; large nights need {gib(GOOD_DISK)}", machine.host)
    else:
        yield passed("disk", found, machine.host)
    if machine.shared_memory is not None and machine.shared_memory < MIN_SHARED_MEMORY:
        advice = "give the container shared memory: `--shm-size=4g`, or a volume of medium Memory at /dev/shm"
        yield warned("shared memory", f"{gib(machine.shared_memory)} free in /dev/shm", advice, machine.host)


def _gpu_check(machine: Machine, device: str) -> Check:
    if machine.gpus:
        names = ", ".join(f"{name} with {gib(memory)}" for name, memory in machine.gpus)
        return passed("GPU", names, machine.host)
    if machine.nvidia:
        found = f"an NVIDIA GPU that torch cannot use: {machine.gpu_problem or 'it finds none'}"
        return failed(
            "GPU", found, "update the driver to one for torch's CUDA; in a container, use --gpus all", machine.host
        )
    if device == "cuda":
        return failed("GPU", "none", "use a machine with an NVIDIA GPU and its driver, or --device cpu", machine.host)
    return passed("GPU", "none; the CPU is used", machine.host)


def _missing(requirements: Iterable[str]) -> Iterator[str]:
    """Requirements, without those of extras, that the environment does not meet."""
    from packaging.requirements import Requirement  # a dependency of Ray

    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            yield f"{requirement.name} is missing"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version} is not {requirement.specifier}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> int:
    """Bytes of memory: of the machine, or of the limit of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(path).read_text())
        except (OSError, ValueError):
            continue
        return min(total, limit) if limit < _NO_LIMIT else total
    return total


def _gpus() -> tuple[tuple[tuple[str, int], ...], str | None]:
    """The GPUs that torch can use: each does a small computation."""
    import torch

    found = []
    try:
        for index in range(torch.cuda.device_count()):
            torch.ones(8, device=f"cuda:{index}").sum().item()
            about = torch.cuda.get_device_properties(index)
            found.append((about.name, int(about.total_memory)))
    except (RuntimeError, AssertionError) as error:
        return (), (str(error).strip() or type(error).__name__).splitlines()[0]
    return tuple(found), None


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _versions(machine: Machine) -> tuple[str, str, str]:
    return _minor(machine.python), machine.package, machine.ray
