"""Serve on this machine or on an existing Ray cluster until interrupted."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError, RunError
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.serving.settings import OF_REPLICAS, ServeSettings

_logger = logging.getLogger(__name__)
APPLICATION = "uniad_ray"
OF_RAY: Final = {
    **OF_REPLICAS,
    # Ray's default is 15; requests wait for these processes.
    "RAY_worker_niceness": "0",
    # Ray's default of 5 seconds restarts a proxy over and over if it starts slowly on a busy machine.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Serve's log repeats the `ready` message and our access log.
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
"""Environment variables of a Ray instance started for one endpoint."""
_CONNECT_SECONDS = 10.0


class Served(StrictModel):
    """A running endpoint.

    Attributes:
        url: Address of the endpoint and of its start page.
        categories: Categories that can be scored.
        is_open: Whether requests need no key.
    """

    url: str
    categories: tuple[str, ...]
    is_open: bool


def serve_until_interrupted(
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    address: str | None,
    ready: Callable[[Served], None],
    open_page: bool = False,
) -> None:
    """Start the endpoint, report that it is ready, and wait for Ctrl-C or SIGTERM.

    Args:
        settings: Settings of the endpoint.
        host: Address to listen on.
        port: Port to listen on.
        address: Ray cluster to join; None starts Ray on this machine.
        ready: Called once images can be scored.
        open_page: Whether to open the page in a browser.

    Raises:
        ConfigError: The keys cannot be read, no bundle is published, or `host` is not loopback and there are no keys.
        BundleError: A bundle cannot be used.
        RunError: The port is in use, or Ray cannot be started.
    """
    from ray import serve

    from uniad_ray.serving.app import build_app
    from uniad_ray.serving.auth.keys import KeyRing

    KeyRing(settings.keys)
    if settings.keys is None and not _is_loopback(host):
        raise ConfigError(
            f"--host {host}: open to other machines; create keys with `uniad-ray serve-key` and pass --keys"
        )
    categories = tuple(BundleStore(settings.bundles).categories())
    if not categories:
        raise ConfigError(
            f"{settings.bundles}: no published bundles; create one with `uniad-ray fit ARCHIVE --bundles ...`"
        )
    _check_port(host, port)
    for name, value in OF_RAY.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with ray_session(address) as cluster, _signals() as signals:
        try:
            serve.start(http_options={"host": host, "port": port})
            serve.run(build_app(settings), name=APPLICATION, route_prefix="/")
            _check_listening(host, port)
            url = f"http://{host}:{port}/"
            ready(Served(url=url, categories=categories, is_open=settings.keys is None))
            if open_page:
                webbrowser.open(url)
            signals.wait()
        except RuntimeError as error:
            raise unwrap(error) if unwrap(error) is not error else RunError(_reason(error)) from error
        finally:
            _end(cluster)


class _Signals:
    """Ctrl-C and SIGTERM: end the wait, or interrupt the start."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._is_waiting = False

    def wait(self) -> None:
        self._is_waiting = True
        self._stopped.wait()

    def receive(self, *_: object) -> None:
        self._stopped.set()
        if not self._is_waiting:
            raise KeyboardInterrupt


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Replace the signal handlers of Python and Ray."""
    signals = _Signals()
    before = {number: signal.signal(number, signals.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(cluster: Cluster) -> None:
    """Finish open requests; on a cluster, other Serve applications keep running."""
    from ray import serve

    serve.delete(APPLICATION)
    if cluster.can_grow and not serve.status().applications:
        serve.shutdown()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise RunError(f"{host}:{port}: cannot listen: {error}; choose another --port") from error


def _check_listening(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"{host}:{port}: Serve already runs on this cluster at another address; pass its --host and --port, "
            "or stop it with `serve shutdown`"
        ) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"cannot start the endpoint: {lines[-1] if lines else type(error).__name__}"
