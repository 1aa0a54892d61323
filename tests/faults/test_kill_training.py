"""Trainings whose workers or driver are killed with kill -9, and trainings on two nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.distilling import LONG_TRAINING, tiny_student, tiny_teachers
from support.job_cluster import JobServer
from support.processes import wait_for, workers_of
from support.trees import mvtec_tree

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.perception.base import State
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
from uniad_ray.training.distillation import STATE_NAME, Distillation, read_student
from uniad_ray.training.step_log import read_step_log

TESTS = Path(__file__).parents[1]
WORKER = b"RayTrainWorker"
START_SECONDS = 600

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("kill-training")
    mvtec_tree(root / "bottle", train=20, good=1, bad=1)
    # In a separate process, to have no second Ray while a training runs.
    arguments = ["ingest", str(root / "bottle"), str(root / "archive"), "--shard-images=8", "--chunk-images=4"]
    subprocess.run([sys.executable, "-m", "uniad_ray.cli", *arguments], check=True, capture_output=True, timeout=400)
    return str(root / "archive")


@pytest.fixture(scope="module")
def undisturbed(archive: str) -> State:
    """The student of an uninterrupted training in one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = Location.parse(archive)
    images = ArchiveNormalImages(source, read_manifest(source), "bottle", (64, 64))
    training = Distillation(tiny_student(LONG_TRAINING), tiny_teachers(), images, range(len(images.rows)))
    state = training.run()
    torch.set_num_threads(threads)
    return state


def start(archive: str, root: Path, workers: int = 1, threads: int = 1) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.train_driver", archive, str(root), str(workers), str(threads)],
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        | {"PYTHONPATH": str(TESTS)},
        start_new_session=True,
    )


def finish(process: subprocess.Popen[bytes]) -> State:
    try:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0
    finally:
        end(process)
    # Nothing else may be on stdout, not even Ray's reports of dead workers.
    return read_student(Location.parse(json.loads(output)["bottle"]))


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def has_checkpoints(root: Path) -> bool:
    return len(list(root.rglob("step-*.safetensors"))) >= 2


def kill_a_worker(process: subprocess.Popen[bytes], root: Path) -> None:
    """Kills the last worker once there are checkpoints to resume from."""
    try:
        wait_for(lambda: has_checkpoints(root), process, START_SECONDS)
        os.kill(workers_of(process.pid, WORKER)[-1], signal.SIGKILL)
    except BaseException:
        end(process)
        raise
    assert not list(root.rglob(STATE_NAME))


def assert_every_step_is_logged_once(root: Path) -> None:
    (state,) = root.rglob(STATE_NAME)
    steps = read_step_log(Location.parse(state.parent)).column("step").to_pylist()
    assert steps == list(range(1, LONG_TRAINING["iterations"] + 1))


def assert_same(one: State, other: State) -> None:
    assert one.document == other.document
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_killed_training_worker_resumes_to_the_same_bits(archive: str, undisturbed: State, tmp_path: Path) -> None:
    process = start(archive, tmp_path)
    kill_a_worker(process, tmp_path)
    assert_same(finish(process), undisturbed)
    assert_every_step_is_logged_once(tmp_path)


def test_killed_training_driver_resumes_when_restarted(archive: str, undisturbed: State, tmp_path: Path) -> None:
    process = start(archive, tmp_path)
    try:
        wait_for(lambda: has_checkpoints(tmp_path), process, START_SECONDS)
    finally:
        end(process)
    assert not list(tmp_path.rglob(STATE_NAME))
    assert_same(finish(start(archive, tmp_path)), undisturbed)
    assert_every_step_is_logged_once(tmp_path)


def test_killed_worker_of_two_matches_two_nodes(archive: str, job_server: JobServer, tmp_path: Path) -> None:
    disturbed = start(archive, tmp_path / "disturbed", workers=2, threads=2)
    kill_a_worker(disturbed, tmp_path / "disturbed")
    found = finish(disturbed)
    environment = {"PYTHONPATH": str(TESTS), "GLOO_SOCKET_IFNAME": "lo"}
    # Two threads fill a node of two CPUs; each worker needs its own node. No working folder is uploaded: the two nodes
    # share this machine's disk, and either would delete it while the other uses it.
    arguments = [archive, str(tmp_path / "nodes"), "2", "2"]
    ended = job_server.ray_job(
        "submit",
        "--runtime-env-json",
        json.dumps({"env_vars": environment}),
        "--",
        "python",
        "-m",
        "support.train_driver",
        *arguments,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    (location,) = (tmp_path / "nodes").rglob(STATE_NAME)
    expected = read_student(Location.parse(location))
    assert location.parent.name == next((tmp_path / "disturbed").rglob(STATE_NAME)).parent.name
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, rtol=0, atol=1e-6, err_msg=name)
