"""Runs trainings on the workers of Ray Train: several in parallel, or each on all workers together."""

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
"""Function that trains one job: called with its key, the group of workers, the device, and a callback for the number of
images so far.

It resumes from the last checkpoint, and returns the number of images in the training and the location of the result.
"""


@dataclass(frozen=True)
class Trained:
    """Results of the jobs.

    Attributes:
        states: Location of the result by job.
        failed: Reason by job, for jobs that failed.
    """

    states: dict[str, Location] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def run_trainings(
    keys: Sequence[str], train: TrainOne, plan: WorkerPlan, images: int, task: str = "training"
) -> Trained:
    """Trains all jobs on one group of workers.

    With at least as many jobs as workers, each worker trains its share of the jobs in turn. With fewer jobs, all
    workers train each job together and exchange gradients. If a worker dies, the group restarts and every job resumes
    from its last checkpoint. If the driver is killed, the same call resumes likewise.

    Args:
        keys: Unique names of the jobs.
        train: Function that trains one job; it is sent to the workers.
        plan: The workers.
        images: Number of images in all trainings, for the progress line.
        task: Name of the work, for the progress line.

    Raises:
        RunError: The workers failed too often.
        UserError: The archive, the configuration or the weights are invalid.
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
    """Settings that all workers share."""

    keys: tuple[str, ...]
    train: TrainOne
    plan: WorkerPlan
    board: Any


class _Board:
    """Actor that collects the progress and the results of the workers, and outlives them."""

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

    def state(self) -> tuple[int, int]:
        """Number of images, and of jobs that have ended."""
        return sum(self._images.values()), len(self._states) + len(self._failed)

    def outcome(self) -> dict[str, dict[str, str]]:
        return {"states": self._states, "failed": self._failed}


def _run_workers(task: _Work, progress: Progress) -> Exception | None:
    """Runs Ray Train to the end; returns the error for the user if it failed."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # A worker in one of Ray's folders would not find weights with a relative path.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    plan = task.plan
    failures: list[Exception] = []

    def work() -> None:
        _work(task)

    with tempfile.TemporaryDirectory(prefix="uniad-ray-train-") as folder:
        # Ray Train's own checkpoints are not used: they are pickles, and all workers would have to call
        # `ray.train.report` equally often. This folder therefore holds nothing to keep or to share with other nodes.
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
            except Exception as error:  # passed to the waiting thread
                failures.append(error)

        # Runs in its own thread: it would catch Ctrl-C otherwise, and the main thread reads the board meanwhile.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        seen = 0
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            images, ended = ray.get(task.board.state.remote())
            if len(task.keys) > 1:
                progress.say(f"{ended} of {len(task.keys)} done")
            progress.advance(images - seen)
            seen = images
    return _plain(failures[0]) if failures else None


def _plain(error: Exception) -> Exception:
    """Returns the error for the user behind an error of Ray Train."""
    failures = [*getattr(error, "worker_failures", {}).values(), error]
    for cause in map(unwrap, failures):
        if isinstance(cause, UserError):
            return cause
    return RunError(
        f"training failed {_MAX_FAILURES + 1} times, the last time with {' '.join(str(failures[0]).split()):.300}; "
        "run the same command again to resume"
    )


def _work(task: _Work) -> None:
    """Trains the jobs of one worker."""
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
    # These errors fail one job; workers that train together all raise them. Any other error restarts the workers.
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
