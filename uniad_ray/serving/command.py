"""Serves on this machine, or on a cluster that is joined, until it is interrupted."""

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
    # Ray's own is 15; somebody waits for these processes.
    "RAY_worker_niceness": "0",
    # Ray's own is 5 seconds, after which a proxy that is slow to start on a busy machine is started again, and again.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Serve tells what `ready` says, and repeats in its access log what ours says.
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
"""Environment of a Ray that is started for an endpoint alone."""
_CONNECT_SECONDS = 10.0


class Served(StrictModel):
    """Where the endpoint is.

    Attributes:
        url: Its address, which is that of the page.
        categories: What can be scored.
        is_open: Whether no key is asked for.
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
    """Starts the endpoint, says that it is ready, and waits for Ctrl-C or SIGTERM.

    Args:
        settings: What the operator decided.
        host: Address to listen on.
        port: Port to listen on.
        address: Ray cluster to join; None starts Ray on this machine.
        ready: Called when images can be scored.
        open_page: Whether the page is opened in a browser.

    Raises:
        ConfigError: The keys cannot be read, or are missing where others than this machine could come in.
        BundleError: There is no bundle, or one cannot be used.
        RunError: The port is taken, or Ray cannot be started.
    """
    from ray import serve

    from uniad_ray.serving.app import build_app
    from uniad_ray.serving.auth.keys import KeyRing

    KeyRing(settings.keys)
    if settings.keys is None and not _is_loopback(host):
        raise ConfigError(
            f"--host {host}: others could use the endpoint; make keys with `uniad-ray serve-key`, give --keys"
        )
    categories = tuple(BundleStore(settings.bundles).categories())
    if not categories:
        raise ConfigError(
            f"{settings.bundles}: no published bundles; make one with `uniad-ray fit ARCHIVE --bundles ...`"
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
    """Ctrl-C and SIGTERM: they end the wait, and interrupt what comes before it."""

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
    """Takes the place of what Python and Ray do on a signal."""
    signals = _Signals()
    before = {number: signal.signal(number, signals.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(cluster: Cluster) -> None:
    """Lets the requests inside finish; where the cluster goes on, so does what others serve there."""
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
        raise RunError(f"{host}:{port}: cannot listen there: {error}; choose another --port") from error


def _check_listening(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"{host}:{port}: nobody listens there: Serve runs on this cluster already, at another address; give its "
            "--host and --port, or end it with `serve shutdown`"
        ) from error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"the endpoint did not start: {lines[-1] if lines else type(error).__name__}"
