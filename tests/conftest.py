"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Test processes side by side share the cores, and threads that spin while they wait would take them from each
    # other. To be set before anything is imported that starts threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Ray counts what it is used for in a process of its own, which takes seconds to start.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
from hypothesis import settings
from support.job_cluster import JobServer, job_cluster
from support.s3_server import S3Server, run_s3_server

# Machines are noisy: a slow example is no failure.
settings.register_profile("uniad_ray", deadline=None)
settings.load_profile("uniad_ray")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, those that share what takes long to prepare stay in one of them."""
    from support.scheduling import ByGroup

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, with whatever shares something with it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from support.scheduling import longest_first

        items[:] = [items[index] for index in longest_first([item.nodeid for item in items])]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, with its endpoint and keys in the environment until the session ends."""
    with run_s3_server() as server, pytest.MonkeyPatch.context() as patch:
        # Nothing of the developer's own AWS configuration may reach, or be reached by, a test.
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
    """A fresh `s3://bucket/<unique>` with nothing below it."""
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def store_root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty root, once on the local disk and once in S3."""
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_prefix"))


@pytest.fixture(scope="session")
def ray_cluster(s3_server: S3Server) -> Iterator[None]:  # noqa: ARG001 - its environment must be there before Ray starts
    """One Ray for all tests that need one; its workers inherit the S3 server's endpoint and keys and find `support`."""
    import ray

    from uniad_ray.pipelines.cluster.ray_start import start_local_ray

    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        # A proxy of Serve that is slow to start beside other tests is not started again.
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        start_local_ray(4)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def serve_port(ray_cluster: None) -> int:  # noqa: ARG001 - Serve runs in it
    """The port of one Serve for all tests that need one; it ends with Ray."""
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
    """A head and a worker node for all tests that submit jobs or deploy to a cluster."""
    with job_cluster() as started:
        yield started
