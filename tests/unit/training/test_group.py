"""Two processes train one student together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.distilling import tiny_student, tiny_teachers
from support.normal_images import DrawnNormalImages

from uniad_ray.archive.stores.location import Location
from uniad_ray.training.distillation import STATE_NAME, Distillation, read_student
from uniad_ray.training.group import WorkerGroup
from uniad_ray.training.step_log import read_step_log

TESTS = Path(__file__).parents[2]


def train(folder: Path, name: str, stop_after: int | None = None) -> None:
    """Trains with two processes, to the end or until both are stopped."""
    rendezvous = folder.parent / f"{name}.rendezvous"
    stop = [] if stop_after is None else [str(stop_after)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "support.distill_worker", str(rank), "2", str(rendezvous), str(folder), *stop],
            env={**os.environ, "PYTHONPATH": str(TESTS), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=400) for process in processes] == [0, 0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("together") / "whole"
    train(folder, "whole")
    return folder


@pytest.mark.slow
def test_resumed_workers_match_uninterrupted_workers(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    train(folder, "first", stop_after=6)
    assert (folder / "checkpoints/step-00000004.safetensors").exists()
    train(folder, "second")
    expected, found = (read_student(Location.parse(path / STATE_NAME)) for path in (whole, folder))
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, rtol=0, atol=1e-6, err_msg=name)
    log = read_step_log(Location.parse(folder))
    assert log.column("step").to_pylist() == list(range(1, 13))
    np.testing.assert_allclose(
        log.column("loss").to_numpy(), read_step_log(Location.parse(whole)).column("loss").to_numpy(), atol=1e-6
    )


@pytest.mark.slow
def test_loss_is_the_mean_over_workers(whole: Path) -> None:
    config = tiny_student()
    losses = []
    for rank in range(2):
        part = Distillation(config, tiny_teachers(), DrawnNormalImages(15), range(15), group=WorkerGroup(rank, 2))
        part._network.train()
        with torch.no_grad():
            found = part._losses(part._network, part._batch(0))
        losses.append(sum(float(loss) for loss in found.values()))
    logged = read_step_log(Location.parse(whole)).column("loss").to_pylist()[0]
    assert logged == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_one_worker_needs_no_process_group() -> None:
    group = WorkerGroup()
    network = torch.nn.Linear(2, 2)
    assert group.distribute(network) is network
    assert group.mean({"a": torch.tensor(3.0)}) == {"a": 3.0}
    assert group.sum(2.5, torch.device("cpu")) == 2.5
    assert group.from_leader(7, torch.device("cpu")) == 7
    group.share_buffers(network)
    group.wait()
