"""Plans the student trainings of a fit, and hands the trained students to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import FitError, UserError
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster
from uniad_ray.pipelines.train.job import TrainingJob

if TYPE_CHECKING:
    from uniad_ray.perception.base import State, TrainedExtractor
    from uniad_ray.scoring.fitting.perceptions import NormalImage


def plan_training(
    archive: str, categories: Sequence[str], config: FitConfig, cluster: Cluster
) -> tuple[list[TrainingJob], dict[str, str]]:
    """Finds the students that the chosen experts need, and the images of each of their trainings.

    Args:
        archive: Root of the archive.
        categories: Categories to fit.
        config: The fit configuration.
        cluster: Resources of the cluster.

    Returns:
        The jobs, empty if no expert needs a student; and the reason by category, for categories that cannot be fitted.

    Raises:
        UserError: The configuration or the weights are invalid.
    """
    import ray

    names = ray.remote(_student_names).options(num_cpus=cluster.cpu_share).remote(config)
    try:
        students = ray.get(names)
    except Exception as error:
        cause = unwrap(error)
        if isinstance(cause, UserError):
            raise cause from None
        raise
    if not students:
        return [], {}
    task = ray.remote(_trainings).options(num_cpus=cluster.cpu_share, max_retries=2)
    planned = {category: task.remote(archive, category, config) for category in categories}
    jobs: list[TrainingJob] = []
    failed: dict[str, str] = {}
    for category, reference in planned.items():
        try:
            trainings = ray.get(reference)
        except Exception as error:  # a failed category does not stop the others
            cause = unwrap(error)
            if not isinstance(cause, FitError):
                raise
            failed[category] = str(cause)
            continue
        jobs += [
            TrainingJob(job_key(category, name, row_keys), category, name, row_keys)
            for name in students
            for row_keys in trainings
        ]
    return jobs, failed


def job_key(category: str, student: str, row_keys: Sequence[str]) -> str:
    """Returns the key of a student's training on a set of images; their order does not matter."""
    digest = hashlib.sha256("\n".join(sorted(row_keys)).encode()).hexdigest()[:16]
    return f"{category}/{student}/{digest}"


def find_trained(
    category: str, rows: Sequence[NormalImage], states: Mapping[str, str]
) -> Callable[[TrainedExtractor, Sequence[int]], State]:
    """Returns a function that reads a trained student for a fit.

    Args:
        category: Category.
        rows: Its normal images.
        states: URI of the trained student by job key.
    """
    from uniad_ray.training.distillation import read_student

    def train(extractor: TrainedExtractor, indices: Sequence[int]) -> State:
        key = job_key(category, extractor.name, [rows[index].row_key for index in indices])
        if key not in states:
            raise FitError(f"category {category!r} changed during the fit; fit it again")
        return read_student(Location.parse(states[key]))

    return train


def _student_names(config: FitConfig) -> list[str]:
    """Returns the names of the extractors to train, as a Ray task."""
    from uniad_ray.perception.base import TrainedExtractor
    from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

    experts: Mapping[str, Any] = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu")
    return [extractor.name for extractor in pipeline.extractors if isinstance(extractor, TrainedExtractor)]


def _trainings(archive: str, category: str, config: FitConfig) -> list[tuple[str, ...]]:
    """Returns the row keys of each training for a category's fit, as a Ray task."""
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.scoring.fitting.twins import split_pictures

    source = Location.parse(archive)
    manifest = read_manifest(source)
    size = with_image_size(config, source, manifest, category).decoded_size
    normal_images = ArchiveNormalImages(source, manifest, category, size, config.normal_images)
    split = split_pictures(normal_images, config.calibration)
    return [tuple(normal_images.rows[index].row_key for index in indices) for indices in split.trainings]
