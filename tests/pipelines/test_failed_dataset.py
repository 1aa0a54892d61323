"""What is left of a dataset on Ray that failed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from uniad_ray.errors import RunError
from uniad_ray.pipelines.cluster.session import configure_ray_data, unwrap

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Fails:
    """An actor of a dataset whose every batch fails."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        raise RunError("damaged")


def fail() -> None:
    import ray

    configure_ray_data()
    actors = ray.data.ActorPoolStrategy(size=1)
    dataset = ray.data.range(4, override_num_blocks=4).map_batches(Fails, batch_size=1, compute=actors, num_cpus=1)
    try:
        for _ in dataset.iter_rows():
            pass
    except Exception as error:
        raise unwrap(error) from error


def test_an_error_that_is_kept_holds_no_worker() -> None:
    import ray

    every = ray.cluster_resources()["CPU"]

    with pytest.raises(RunError, match="damaged") as kept:
        fail()

    ends = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < every and time.monotonic() < ends:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == every
    assert kept.value is not None
