"""Trains students on Ray Train: several in parallel, or each on all workers together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import category_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import FitError
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers, plan_group, tasks_reason
from uniad_ray.pipelines.train.worker import Trained, run_trainings

if TYPE_CHECKING:
    from uniad_ray.training.group import WorkerGroup

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """One student to train.

    Attributes:
        key: Unique name of the job.
        category: Category in the archive.
        student: Name of the student extractor in the configuration.
        row_keys: Row keys of the normal images to train on.
    """

    key: str
    category: str
    student: str
    row_keys: tuple[str, ...]


def train_students(
    archive: str,
    config: FitConfig,
    jobs: Sequence[TrainingJob],
    root: Location,
    *,
    sidecar: str | None = None,
    cluster: Cluster,
    workers: Workers | None = None,
) -> Trained:
    """Trains all jobs on one group of workers.

    With at least as many jobs as workers, each worker trains its share of the jobs in turn. With fewer jobs, all
    workers train each job together and exchange gradients. If a worker dies, the group restarts and every job resumes
    from its last checkpoint. If the driver is killed, the same call resumes likewise.

    Args:
        archive: Root of the archive.
        config: The fit configuration.
        jobs: The students to train.
        root: Root of the trainings. The folder of each is named by a digest of all inputs that determine its result.
        sidecar: Root of a sidecar of the archive, to reuse its features of the teachers.
        cluster: Resources of the cluster.
        workers: Processes that train; see `plan_group`.

    Returns:
        Locations of the trained students (see `uniad_ray.training.distillation.read_student`), and the failed jobs.

    Raises:
        RunError: The workers do not fit the cluster, or failed too often.
        ConfigError: The batch size is not divisible among the workers.
        UserError: The archive, the configuration or the weights are invalid.
    """
    if not jobs:
        return Trained()
    wanted = workers or Workers()
    plan = plan_group(len(jobs), wanted, cluster)
    _logger.info("training with %s", tasks_reason(plan, len(jobs), wanted, cluster))
    sharing = plan.count if len(jobs) < plan.count else 1
    images = {name: _images_of_training(config, name, sharing) for name in {job.student for job in jobs}}
    train = partial(_train, _Trainings(archive, config, {job.key: job for job in jobs}, root, sidecar))
    return run_trainings([job.key for job in jobs], train, plan, sum(images[job.student] for job in jobs))


def _images_of_training(config: FitConfig, student: str, sharing: int) -> int:
    """Returns the number of images in the training of a student, and checks its options before workers start."""
    from uniad_ray.training.distillation import student_config
    from uniad_ray.training.group import check_batch_size

    training = student_config(_student(config, student)).training
    check_batch_size(training.batch_size, sharing)
    return training.iterations * training.batch_size


@dataclass(frozen=True)
class _Trainings:
    """Settings that all workers share, with the jobs by key; see `train_students`."""

    archive: str
    config: FitConfig
    jobs: Mapping[str, TrainingJob]
    root: Location
    sidecar: str | None


def _train(
    trainings: _Trainings, key: str, group: WorkerGroup, device: str, advance: Callable[[int], None]
) -> tuple[int, Location]:
    """Trains one job unless it is trained; returns the number of images in its training and the student's location."""
    from uniad_ray.perception.region import Region
    from uniad_ray.scoring.factory import build_pipeline
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.sidecars.reader import fields_of_normal_images
    from uniad_ray.training.distillation import STATE_NAME, Distillation, student_config

    job, sidecar = trainings.jobs[key], trainings.sidecar
    source = Location.parse(trainings.archive)
    manifest = read_manifest(source)
    config = category_config(trainings.config, source, manifest, job.category)
    normal_images = ArchiveNormalImages(
        source, manifest, job.category, config.decoded_size, config.normal_images, Region.of(config), config.value_range
    )
    wanted = set(job.row_keys)
    indices = [index for index, row in enumerate(normal_images.rows) if row.row_key in wanted]
    if len(indices) != len(job.row_keys):
        raise FitError(f"{source}: category {job.category!r} changed during the fit; fit it again")
    student = _student(config, job.student)
    needs = [(name, f"the training of {job.student}") for name in sorted(student.training_needs)]
    teachers = build_pipeline(config, needs, device=device)
    options = student_config(student)
    batch = options.training.batch_size

    stored = None
    if sidecar is not None and not normal_images.has_copies:
        stored = fields_of_normal_images(
            sidecar, manifest.digest, job.category, normal_images.rows, teachers, config.decoded_size
        )

    with normal_images.naming_images():
        training = Distillation(options, teachers, normal_images, indices, group=group, device=device, stored=stored)
        folder = trainings.root / training.digest
        training.run(folder, on_step=lambda step: advance(step * batch))
    return training.iterations * batch, folder / STATE_NAME


def _student(config: FitConfig, name: str) -> Any:
    """Builds the untrained student of a configuration."""
    from uniad_ray.scoring.factory import build_pipeline

    pipeline = build_pipeline(config, [(f"{name}/logical", "the training")], device="cpu")
    return next(extractor for extractor in pipeline.extractors if extractor.name == name)
