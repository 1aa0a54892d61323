"""Fixtures shared by several folders of tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Parallel test processes share the cores; threads that spin while they wait would slow each other down. Set before
    # any import that starts threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Ray collects usage statistics in a separate process, which takes seconds to start.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from hypothesis import settings
from support.ingests import Ingest, without_ray
from support.job_cluster import JobServer, job_cluster
from support.s3_server import S3Server, run_s3_server

# On a noisy machine, a slow example is not a failure.
settings.register_profile("uniad_ray", deadline=None)
settings.load_profile("uniad_ray")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps tests that share slow set-up in one process when tests run in parallel."""
    from support.scheduling import ByGroup

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the slowest groups of tests first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from support.scheduling import longest_first

        items[:] = [items[index] for index in longest_first([item.nodeid for item in items])]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in a fixed order: networks and trainings agree bit for bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """Ingests in this process."""
    return without_ray(monkeypatch)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, with its endpoint and keys in the environment until the session ends."""
    with run_s3_server() as server, pytest.MonkeyPatch.context() as patch:
        # Isolates the tests from the developer's AWS configuration.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3_prefix(s3_server: S3Server) -> str:
    """An empty, unique prefix `s3://bucket/<unique>`."""
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def store_root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty root, once on the local disk and once in S3."""
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_prefix"))


@pytest.fixture(scope="session")
def ray_cluster(s3_server: S3Server) -> Iterator[None]:  # noqa: ARG001 - Ray inherits its environment
    """One Ray for all tests; its workers inherit the S3 server's endpoint and keys, and can import `support`."""
    import ray

    from uniad_ray.pipelines.cluster.ray_start import start_local_ray

    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        # Keeps Serve from restarting a proxy that starts slowly on a busy machine.
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        # Ray's workers would get only the time that the other test process leaves idle.
        patch.setenv("RAY_worker_niceness", "0")
        start_local_ray(4)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def serve_port(ray_cluster: None) -> int:  # noqa: ARG001 - Serve runs in it
    """The port of one Serve for all tests; it stops with Ray."""
    from ray import serve
    from support.s3_server import free_ports

    (port,) = free_ports(1)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    return int(port)


@pytest.fixture(scope="session")
def fitted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fitted bundle of `trays`, `good.png` and `damaged.png`; copy it before changing a file."""
    from support.fitted import write_fitted

    folder = tmp_path_factory.mktemp("fitted")
    write_fitted(folder)
    return folder


@pytest.fixture(scope="session")
def job_server() -> Iterator[JobServer]:
    """One cluster of a head and a worker node for all tests that submit jobs or deploy."""
    with job_cluster() as started:
        yield started
