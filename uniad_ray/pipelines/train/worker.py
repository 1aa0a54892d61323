"""Runs trainings on the workers of Ray Train: several side by side, or one by all workers together."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ConfigError, FitError, RunError, UserError, WeightsError
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.pipelines.cluster.sizing import WorkerPlan
from uniad_ray.progress import Progress

if TYPE_CHECKING:
    from uniad_ray.training.group import WorkerGroup

_MAX_FAILURES = 3
_POLL_SECONDS = 0.5

TrainOne = Callable[[str, "WorkerGroup", str, Callable[[int], None]], tuple[int, Location]]
"""Trains the job of a key with a group of workers on a device, and says how many images have passed meanwhile.

Gives the images of a whole training and where its result is. It goes on from its last checkpoint where there is one.
"""


@dataclass(frozen=True)
class Trained:
    """What came of the jobs.

    Attributes:
        states: Where the result is, by job.
        failed: Reason by job of those that cannot be trained.
    """

    states: dict[str, Location] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def run_trainings(
    keys: Sequence[str], train: TrainOne, plan: WorkerPlan, images: int, task: str = "training"
) -> Trained:
    """Trains all jobs on one group of workers.

    With no fewer jobs than workers, each worker trains its own, one after the other; with fewer, all workers train each
    job together and exchange gradients. A worker that dies restarts the group, and every job goes on from its last
    checkpoint; so it does where the driver is killed and the same call is made again.

    Args:
        keys: A name for each job.
        train: Trains one of them; it is sent to the workers.
        plan: The workers.
        images: Images of all trainings together, for the progress line.
        task: What is done, for the progress line.

    Raises:
        RunError: The workers died again and again.
        UserError: The archive, the configuration or the weights are not as they should be.
    """
    import ray

    board = ray.remote(_Board).options(num_cpus=0).remote()
    work = _Work(tuple(keys), train, plan, board)
    with Progress(task, images) as progress:
        error = _run_workers(work, progress)
    outcome = ray.get(board.outcome.remote())
    if error is not None:
        raise error
    return Trained({key: Location.parse(uri) for key, uri in outcome["states"].items()}, outcome["failed"])


@dataclass(frozen=True)
class _Work:
    """What every worker is told; holds nothing that depends on the worker."""

    keys: tuple[str, ...]
    train: TrainOne
    plan: WorkerPlan
    board: Any


class _Board:
    """Where workers tell the driver how far they are; survives them."""

    def __init__(self) -> None:
        self._images: dict[str, int] = {}
        self._states: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def advance(self, job: str, images: int) -> None:
        self._images[job] = images

    def finish(self, job: str, images: int, uri: str) -> None:
        self._images[job] = images
        self._states[job] = uri

    def fail(self, job: str, reason: str) -> None:
        self._failed[job] = reason

    def images(self) -> int:
        return sum(self._images.values())

    def outcome(self) -> dict[str, dict[str, str]]:
        return {"states": self._states, "failed": self._failed}


def _run_workers(task: _Work, progress: Progress) -> Exception | None:
    """Runs Ray Train to its end; returns what a user should be told where it failed."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # A worker in a folder of Ray's would not find weights that are named by a relative path.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    plan = task.plan
    failures: list[Exception] = []

    def work() -> None:
        _work(task)

    with tempfile.TemporaryDirectory(prefix="uniad-ray-train-") as folder:
        # Ray Train's own checkpoints are not used: they are pickles, and `ray.train.report` would have to be called
        # equally often by all workers. So nothing of worth is ever in this folder, and no other node needs to see it.
        trainer = TorchTrainer(
            work,
            scaling_config=ScalingConfig(
                num_workers=plan.count, use_gpu=plan.gpus > 0, resources_per_worker={"CPU": plan.cpus}
            ),
            run_config=RunConfig(
                name="training", storage_path=folder, failure_config=FailureConfig(max_failures=_MAX_FAILURES)
            ),
        )

        def fit() -> None:
            try:
                trainer.fit()
            except Exception as error:  # handed over to the thread that waits
                failures.append(error)

        # In a thread of its own, since it would take over Ctrl-C, and since somebody must watch the board.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        seen = 0
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            images = ray.get(task.board.images.remote())
            progress.advance(images - seen)
            seen = images
    return _plain(failures[0]) if failures else None


def _plain(error: Exception) -> Exception:
    """What a user should be told of Ray Train's error."""
    failures = [*getattr(error, "worker_failures", {}).values(), error]
    for cause in map(unwrap, failures):
        if isinstance(cause, UserError):
            return cause
    return RunError(
        f"training failed {_MAX_FAILURES + 1} times, the last time with {' '.join(str(failures[0]).split()):.300}; "
        "give the same command again to go on"
    )


def _work(task: _Work) -> None:
    """What one worker of Ray Train does."""
    import ray
    import ray.train

    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.training.group import WorkerGroup

    limit_threads(task.plan.threads)
    device = choose_device(task.plan.device)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    together = len(task.keys) < world
    group = WorkerGroup(rank, world) if together else WorkerGroup()
    # Of one job alone, and, where they train together, raised by all workers; whatever else goes wrong restarts them.
    of_the_job = (FitError, ConfigError) if together else (FitError, ConfigError, WeightsError)
    for key in task.keys if together else task.keys[rank::world]:

        def advance(images: int, key: str = key) -> None:
            if group.leads:
                task.board.advance.remote(key, images)

        try:
            images, location = task.train(key, group, device, advance)
        except of_the_job as error:
            ray.get(task.board.fail.remote(key, str(error)))
        else:
            ray.get(task.board.finish.remote(key, images, location.uri))
