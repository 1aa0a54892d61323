"""Two processes tune one CLIP together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_networks import save_clip
from support.tuning import clip_tuning

from uniad_ray.archive.stores.location import Location
from uniad_ray.perception.base import State
from uniad_ray.training.clip.tuning import STATE_NAME, read_tuned
from uniad_ray.training.group import WorkerGroup
from uniad_ray.training.schedule import learning_rate
from uniad_ray.training.step_log import read_step_log

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

TESTS = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def tune(clip: Path, folder: Path, name: str, stop_after: int | None = None) -> None:
    """Tunes with two processes, to the end or until both are stopped."""
    rendezvous = folder.parent / f"{name}.rendezvous"
    stop = [] if stop_after is None else [str(stop_after)]
    arguments = ["2", str(rendezvous), str(clip), str(folder), *stop]
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "support.tune_worker", str(rank), *arguments],
            env={**os.environ, "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=400) for process in processes] == [0, 0]


def by_hand(clip: Path) -> State:
    """Runs the same steps in one process, each on the crops of both workers."""
    tuning = clip_tuning(clip)
    orders = [clip_tuning(clip, group=WorkerGroup(rank, 2))._order for rank in range(2)]
    optimiser = torch.optim.AdamW([parameter for _, parameter in tuning._parameters], weight_decay=0.01)
    for step in range(tuning.iterations):
        optimiser.param_groups[0]["lr"] = learning_rate(tuning._rates, step)
        crops = [tuning._members[position] for order in orders for position in order.batch(step)]
        optimiser.zero_grad()
        tuning._loss(tuning._classifier, crops).backward()
        optimiser.step()
    look = tuning._look()
    arrays = {name.removeprefix("network."): array for name, array in tuning._arrays().items()}
    return State(arrays, {"after": list(look.right), "loss_after": look.loss})


def test_interrupted_workers_match_one_process(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    save_clip(clip)
    folder = tmp_path / "tuned"
    tune(clip, folder, "first", stop_after=8)
    assert (folder / "checkpoints/step-00000005.safetensors").exists()
    tune(clip, folder, "second")
    expected, found = by_hand(clip), read_tuned(Location.parse(folder / STATE_NAME))
    assert found.document["epoch"] == found.document["epochs"]
    assert found.document["after"] == expected.document["after"]
    assert found.document["loss_after"] == pytest.approx(expected.document["loss_after"], rel=1e-3)
    for name, array in expected.arrays.items():
        # The key bias does not change attention: its gradient is only rounding error, which Adam amplifies.
        if not name.endswith("k_proj.bias"):
            np.testing.assert_allclose(found.arrays[name], array, rtol=0, atol=1e-4, err_msg=name)
    assert read_step_log(Location.parse(folder)).column("step").to_pylist() == list(range(1, 21))
