"""Trains students on Ray Train: several side by side, or one by all workers together."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.object_store import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError, FitError, RunError, UserError, WeightsError
from uniad_ray.pipelines.progress import Progress
from uniad_ray.pipelines.ray_session import Cluster, unwrap

MAX_THREADS = 8
"""More threads than this do not make one worker faster."""

_MAX_FAILURES = 3
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TrainingJob:
    """One student to train.

    Attributes:
        key: Name of the job, another one for each.
        category: Category in the archive.
        student: Name of the student among the configuration's perceivers.
        row_keys: Row keys of the normal images to train on.
    """

    key: str
    category: str
    student: str
    row_keys: tuple[str, ...]


@dataclass(frozen=True)
class TrainedStudents:
    """What came of the jobs.

    Attributes:
        states: Where the trained student is, by job; see `uniad_ray.training.distillation.read_student`.
        failed: Reason by job of those that cannot be trained.
    """

    states: dict[str, Location] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def train_students(
    archive: str,
    config: FitConfig,
    jobs: Sequence[TrainingJob],
    root: Location,
    *,
    sidecar: str | None = None,
    cluster: Cluster,
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    where: str = "the configuration",
) -> TrainedStudents:
    """Trains all jobs on one group of workers.

    With no fewer jobs than workers, each worker trains its own, one after the other; with fewer, all workers train each
    job together and exchange gradients. A worker that dies restarts the group, and every job goes on from its last
    checkpoint; so it does where the driver is killed and the same call is made again.

    Args:
        archive: Root of the archive.
        config: The fit configuration.
        jobs: The students to train.
        root: Where each training has a folder, named by the digest of all that decides its result.
        sidecar: Root of a sidecar of the archive, for what it holds of the teachers.
        cluster: What there is to work with.
        workers: Processes; default one a job, as far as there are GPUs or CPUs.
        threads: Threads of each; default its share of the CPUs. With another number the result differs in its last
            digits.
        device: `cpu`, `cuda` or `auto`.
        where: File the configuration came from, for messages.

    Raises:
        RunError: The workers do not fit the cluster, or died again and again.
        ConfigError: A batch cannot be shared by the workers.
        UserError: The archive, the configuration or the weights are not as they should be.
    """
    if not jobs:
        return TrainedStudents()
    uses_gpus = cluster.uses_gpus(device)
    workers = workers or max(1, min(len(jobs), cluster.gpus if uses_gpus else cluster.physical_cpus))
    threads = threads or max(1, min(MAX_THREADS, cluster.node_cpus, cluster.physical_cpus // workers))
    cpus = threads * cluster.cpu_share
    if not cluster.can_grow and workers * cpus > cluster.logical_cpus:
        raise RunError(
            f"{workers} training workers with {threads} threads each do not fit {cluster.logical_cpus:.0f} CPUs; "
            "take fewer workers or threads"
        )
    sharing = workers if len(jobs) < workers else 1
    images = {name: _images_of_training(config, name, where, sharing) for name in {job.student for job in jobs}}
    import ray

    board = ray.remote(_Board).options(num_cpus=0).remote()
    task = _Task(archive, config, tuple(jobs), root.uri, sidecar, threads, device, where, board)
    with Progress("training", sum(images[job.student] for job in jobs)) as progress:
        error = _run_workers(task, workers, cpus, uses_gpus, progress)
    outcome = ray.get(board.outcome.remote())
    if error is not None:
        raise error
    return TrainedStudents({key: Location.parse(uri) for key, uri in outcome["states"].items()}, outcome["failed"])


@dataclass(frozen=True)
class _Task:
    """What every worker is told; holds nothing that depends on the worker."""

    archive: str
    config: FitConfig
    jobs: tuple[TrainingJob, ...]
    root: str
    sidecar: str | None
    threads: int
    device: str
    where: str
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


def _images_of_training(config: FitConfig, student: str, where: str, sharing: int) -> int:
    """Images that pass through a student until its training ends, and a check of the options before workers start."""
    from uniad_ray.training.distillation import check_batch_size, student_config

    options = student_config(_student(config, student, where))
    check_batch_size(options, sharing)
    training = options.training
    return training.iterations * training.batch_size


def _run_workers(task: _Task, workers: int, cpus: float, uses_gpus: bool, progress: Progress) -> Exception | None:
    """Runs Ray Train to its end; returns what a user should be told where it failed."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # A worker in a folder of Ray's would not find weights that are named by a relative path.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    failures: list[Exception] = []

    def work() -> None:
        _work(task)

    with tempfile.TemporaryDirectory(prefix="uniad-ray-train-") as folder:
        # Ray Train's own checkpoints are not used: they are pickles, and `ray.train.report` would have to be called
        # equally often by all workers. So nothing of worth is ever in this folder, and no other node needs to see it.
        trainer = TorchTrainer(
            work,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=uses_gpus, resources_per_worker={"CPU": cpus}),
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


def _work(task: _Task) -> None:
    """What one worker of Ray Train does."""
    import ray
    import ray.train

    from uniad_ray.pipelines.compute import choose_device, limit_threads
    from uniad_ray.training.group import WorkerGroup

    limit_threads(task.threads)
    device = choose_device(task.device)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    together = len(task.jobs) < world
    group = WorkerGroup(rank, world) if together else WorkerGroup()
    # Of one job alone, and, where they train together, raised by all workers; whatever else goes wrong restarts them.
    of_the_job = (FitError, ConfigError) if together else (FitError, ConfigError, WeightsError)
    for job in task.jobs if together else task.jobs[rank::world]:
        try:
            images, location = _train(task, job, group, device)
        except of_the_job as error:
            ray.get(task.board.fail.remote(job.key, str(error)))
        else:
            ray.get(task.board.finish.remote(job.key, images, location.uri))


def _train(task: _Task, job: TrainingJob, group: Any, device: str) -> tuple[int, Location]:
    """Trains one job, or finds it trained; gives the images of a whole training and where the student is."""
    from uniad_ray.pipelines.normals import ArchiveNormals
    from uniad_ray.pipelines.sidecar import fields_of_normals
    from uniad_ray.scoring.components import build_pipeline
    from uniad_ray.training.distillation import STATE_NAME, Distillation, student_config

    source = Location.parse(task.archive)
    manifest = read_manifest(source)
    normals = ArchiveNormals(source, manifest, job.category, task.config.input_size, task.config.normal_images)
    wanted = set(job.row_keys)
    indices = [index for index, row in enumerate(normals.rows) if row.row_key in wanted]
    if len(indices) != len(job.row_keys):
        raise FitError(f"{source}: category {job.category!r} changed while it was fitted; fit it again")
    student = _student(task.config, job.student, task.where)
    needs = [(name, f"the training of {job.student}") for name in sorted(student.training_needs)]
    teachers = build_pipeline(task.config, needs, device=device, where=task.where)
    config = student_config(student)
    batch = config.training.batch_size

    stored = None
    if task.sidecar is not None and not normals.has_copies:
        stored = fields_of_normals(
            task.sidecar, manifest.digest, job.category, normals.rows, teachers, task.config.input_size
        )

    def advance(step: int) -> None:
        if group.leads:
            task.board.advance.remote(job.key, step * batch)

    with normals.naming_images():
        training = Distillation(config, teachers, normals, indices, group=group, device=device, stored=stored)
        folder = Location.parse(task.root) / training.digest
        training.run(folder, on_step=advance)
    return training.iterations * batch, folder / STATE_NAME


def _student(config: FitConfig, name: str, where: str) -> Any:
    """The untrained student among the perceivers."""
    from uniad_ray.scoring.components import build_pipeline

    pipeline = build_pipeline(config, [(f"{name}/logical", "the training")], device="cpu", where=where)
    return next(perceiver for perceiver in pipeline.perceivers if perceiver.name == name)
