"""Starts Ray on this machine or joins a cluster, and always leaves the machine as it was."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from uniad_ray.errors import RunError, UniadRayError
from uniad_ray.pipelines.cluster.ray_start import first_line, start_local_ray
from uniad_ray.pipelines.cluster.sizing import MIN_LOGICAL_CPUS, Cluster

_DEFAULTS = {
    # Ray's C++ core writes remarks about its own actors to stderr at level error; a user can do nothing about them.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Threads that spin while they wait make a worker ten times slower as soon as anything else wants its cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A job submitted with variables of its own has given them to this process, which forwards them; Ray would refuse
    # to be told the same variable twice.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
_CONNECT_SECONDS = 10.0
_ADDED_BY_RAY = "\nFailed to apply UDF transform"
_TOKEN_REFUSED = re.compile("AuthenticationError|Unauthenticated|InvalidAuthToken")
_FORWARDED = (
    "OMP_WAIT_POLICY",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "UNIAD_RAY_CACHE",
)


@contextmanager
def ray_session(address: str | None = None) -> Iterator[Cluster]:
    """Gives a cluster for the length of a block.

    An initialised Ray is used as it is and left running. Otherwise `address`, or the `RAY_ADDRESS` that
    `ray job submit` sets, is joined; without either Ray is started on this machine with at least 4 logical CPUs, in
    several tries where the machine is busy, and shut down at the end.

    Args:
        address: Address of a running cluster, or `auto`.

    Raises:
        RunError: The cluster cannot be joined or started.
    """
    import ray

    if ray.is_initialized():
        yield _cluster(can_grow=False)
        return
    target = address or os.environ.get("RAY_ADDRESS")
    if target:
        _check_reachable(target)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Ray says on stdout that a worker died, where `--json` has its document.
    with redirect_stdout(sys.stderr):
        if target:
            _join(target)
        else:
            start_local_ray(local_cpus())
        try:
            yield _cluster(can_grow=bool(target))
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    import ray

    variables = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables} if variables else None,
        )
    except Exception as error:  # Ray raises bare ones as well
        if _asks_for_token(error):
            raise RunError(
                f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and set RAY_AUTH_TOKEN to "
                "the cluster's token or keep it in ~/.ray/auth_token"
            ) from error
        raise RunError(
            f"the Ray cluster at {address} cannot be joined: {first_line(error)}; check the address"
        ) from error


def local_cpus() -> int:
    """Logical CPUs of a Ray started on this machine: all it has, and never fewer than 4."""
    return max(MIN_LOGICAL_CPUS, usable_cpus())


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure_ray_data() -> None:
    """Quiets Ray Data's own bars and logs, which would mix with ours, and lets our errors through as they are."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Ray Data's own wrapper loses the cause on its way to the driver.
    context.raise_original_map_exception = True
    for name in ("ray.data", "ray.data._internal", "ray.data._internal.execution.streaming_executor"):
        logging.getLogger(name).setLevel(logging.ERROR)


def unwrap(error: BaseException) -> BaseException:
    """Finds the error of this package inside Ray's wrappers, or gives the error back as it is."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, UniadRayError):
            return _plain(current)
        current = getattr(current, "cause", None) or current.__cause__ or current.__context__
    return error


def _check_reachable(address: str) -> None:
    """Fails at once where nothing listens; Ray itself would try for minutes."""
    match = re.fullmatch(r"(?:ray://)?(?P<host>[^:/]+):(?P<port>\d{1,5})", address)
    if match is None:
        return
    try:
        socket.create_connection((match["host"], int(match["port"])), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RunError(f"the Ray cluster at {address} cannot be joined: {error}; check the address") from error


def _asks_for_token(error: BaseException) -> bool:
    """Whether a cluster refused this process for its token, which Ray says only in the text of a cause."""
    current: BaseException | None = error
    while current is not None:
        if _TOKEN_REFUSED.search(f"{type(current).__name__}: {current}"):
            return True
        current = current.__cause__ or current.__context__
    return False


def _plain(error: UniadRayError) -> UniadRayError:
    """Drops the mixed-in Ray type, whose message holds a remote traceback, and what Ray Data adds to ours."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, UniadRayError):
        error = error.cause
    error.args = tuple(part.partition(_ADDED_BY_RAY)[0] if isinstance(part, str) else part for part in error.args)
    return error


def _cluster(*, can_grow: bool) -> Cluster:
    import ray

    resources = ray.cluster_resources()
    logical = float(resources.get("CPU", 0))
    alive = [node for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in alive if node["Resources"].get("GPU")]
    nodes = [node["NodeManagerAddress"] for node in alive]
    # A Ray of this machine alone may say that it has more CPUs than there are; see MIN_LOGICAL_CPUS.
    is_here = nodes in ([ray.util.get_node_ip_address()], ["127.0.0.1"])
    physical = min(logical, usable_cpus()) if is_here else logical
    return Cluster(
        logical_cpus=max(logical, 0.5),
        physical_cpus=max(1, int(physical)),
        gpus=int(resources.get("GPU", 0)),
        node_cpus=max(1, *(int(node["Resources"].get("CPU", 0)) for node in with_gpu or alive)),
        can_grow=can_grow,
    )
