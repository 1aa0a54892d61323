"""Ray session: starts Ray on this machine or joins a cluster, and cleans up at the end."""

from __future__ import annotations

import gc
import logging
import os
import re
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from uniad_ray.errors import RunError, UniadRayError
from uniad_ray.pipelines.cluster.ray_start import first_line, start_local_ray
from uniad_ray.pipelines.cluster.sizing import MIN_LOGICAL_CPUS, Cluster

_DEFAULTS = {
    # Ray's C++ core logs messages about its own actors to stderr at level error; a user cannot act on them.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Threads that spin while they wait make a worker ten times slower when another process needs its cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A submitted job may set variables in its own runtime environment. This process forwards them, and Ray refuses a
    # variable that is set twice without this option.
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
    """Provides a cluster within a `with` block.

    An initialised Ray is used as it is and left running. Otherwise the cluster at `address`, or at the `RAY_ADDRESS`
    that `ray job submit` sets, is joined. Without either, Ray starts on this machine with at least 4 logical CPUs, with
    retries on a busy machine, and is shut down at the end.

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
    # Ray reports dead workers on stdout, which `--json` needs for its document.
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
    except Exception as error:  # Ray also raises bare exceptions
        if _asks_for_token(error):
            raise RunError(
                f"the Ray cluster at {address} requires a token: set RAY_AUTH_MODE=token, and put the cluster's token "
                "in RAY_AUTH_TOKEN or in ~/.ray/auth_token"
            ) from error
        raise RunError(f"cannot join the Ray cluster at {address}: {first_line(error)}; check the address") from error


def local_cpus() -> int:
    """Returns the logical CPUs for a Ray started on this machine: all CPUs, and at least 4."""
    return max(MIN_LOGICAL_CPUS, usable_cpus())


def usable_cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure_ray_data() -> None:
    """Silences Ray Data's progress bars and logs, and lets this package's errors pass unwrapped."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Ray Data's wrapper loses the cause on the way to the driver.
    context.raise_original_map_exception = True
    # The caller gets the error. Ray Data's log would show it twice, and a handler that keeps records holds the workers.
    for name in ("ray.data", "ray.data._internal", "ray.data._internal.execution.streaming_executor"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def unwrap(error: BaseException) -> BaseException:
    """Returns the error of this package inside Ray's wrappers, or the error itself if there is none.

    Afterwards, the error holds no worker. Ray Data ends actors when nothing refers to them, but the frames of a
    traceback do, and so does a reference cycle in Ray Data: in a notebook, the next call found no free CPU for minutes.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    found = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, UniadRayError):
            found = _plain(current)
            break
        current = getattr(current, "cause", None) or current.__cause__ or current.__context__
    _release_frames(error, set())
    gc.collect()
    return found


def _release_frames(error: object, seen: set[int]) -> None:
    """Clears the local variables of finished frames, and drops the errors that Ray handled on the way."""
    if not isinstance(error, BaseException) or id(error) in seen:
        return
    seen.add(id(error))
    traceback.clear_frames(error.__traceback__)
    for inner in (error.__cause__, error.__context__, getattr(error, "cause", None)):
        _release_frames(inner, seen)
    error.__context__ = None


def _check_reachable(address: str) -> None:
    """Fails at once if nothing listens at the address; Ray would retry for minutes.

    Raises:
        RunError: No connection.
    """
    match = re.fullmatch(r"(?:ray://)?(?P<host>[^:/]+):(?P<port>\d{1,5})", address)
    if match is None:
        return
    try:
        socket.create_connection((match["host"], int(match["port"])), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RunError(f"cannot join the Ray cluster at {address}: {error}; check the address") from error


def _asks_for_token(error: BaseException) -> bool:
    """Returns whether the cluster refused this process's token; Ray says so only in the message of a cause."""
    current: BaseException | None = error
    while current is not None:
        if _TOKEN_REFUSED.search(f"{type(current).__name__}: {current}"):
            return True
        current = current.__cause__ or current.__context__
    return False


def _plain(error: UniadRayError) -> UniadRayError:
    """Removes Ray's remote traceback and Ray Data's additions from the error's message."""
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
    # A Ray on this machine alone may declare more CPUs than it has; see MIN_LOGICAL_CPUS.
    is_here = nodes in ([ray.util.get_node_ip_address()], ["127.0.0.1"])
    physical = min(logical, usable_cpus()) if is_here else logical
    return Cluster(
        logical_cpus=max(logical, 0.5),
        physical_cpus=max(1, int(physical)),
        gpus=int(resources.get("GPU", 0)),
        node_cpus=max(1, *(int(node["Resources"].get("CPU", 0)) for node in with_gpu or alive)),
        can_grow=can_grow,
    )
