"""Finds and plans the student trainings of a fit, and hands the trained students to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import category_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import FitError, UserError
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster
from uniad_ray.pipelines.train.job import TrainingJob

if TYPE_CHECKING:
    from uniad_ray.perception.base import State, TrainedExtractor
    from uniad_ray.scoring.fitting.perceptions import NormalImage


class Students(NamedTuple):
    """Students that the experts of a configuration need.

    Attributes:
        names: Names of the extractors to train.
        may_be_omitted: Whether the expert selection decides on them before they are trained.
    """

    names: tuple[str, ...]
    may_be_omitted: bool


def find_students(config: FitConfig, cluster: Cluster) -> Students:
    """Finds the students that the chosen experts need.

    Args:
        config: The fit configuration.
        cluster: Resources of the cluster.

    Raises:
        UserError: The configuration or the weights are invalid.
    """
    import ray

    try:
        found: Students = ray.get(ray.remote(_find_students).options(num_cpus=cluster.cpu_share).remote(config))
    except Exception as error:
        cause = unwrap(error)
        if isinstance(cause, UserError):
            raise cause from None
        raise
    return found


def plan_training(
    archive: str,
    categories: Sequence[str],
    config: FitConfig,
    students: Sequence[str],
    cluster: Cluster,
    *,
    is_trial: bool,
) -> tuple[list[TrainingJob], dict[str, str]]:
    """Finds the images of each training.

    Args:
        archive: Root of the archive.
        categories: Categories to train students for.
        config: The fit configuration.
        students: Names of the extractors to train.
        cluster: Resources of the cluster.
        is_trial: Whether to train each student only once.

    Returns:
        The jobs; and the reason by category, for categories that cannot be fitted.
    """
    import ray

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
            for row_keys in (trainings[:1] if is_trial else trainings)
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


def _find_students(config: FitConfig) -> Students:
    """Finds the extractors to train, as a Ray task."""
    from uniad_ray.perception.base import TrainedExtractor
    from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
    from uniad_ray.scoring.fitting.rounds import experts_before_training, experts_with_students

    experts = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu")
    names = tuple(extractor.name for extractor in pipeline.extractors if isinstance(extractor, TrainedExtractor))
    first = experts_before_training(config, tuple(experts), experts_with_students(experts, pipeline))
    return Students(names, len(first) < len(experts))


def _trainings(archive: str, category: str, config: FitConfig) -> list[tuple[str, ...]]:
    """Returns the row keys of each training for a category's fit, as a Ray task."""
    from uniad_ray.perception.region import Region
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.scoring.fitting.twins import split_pictures

    source = Location.parse(archive)
    manifest = read_manifest(source)
    config = category_config(config, source, manifest, category)
    normal_images = ArchiveNormalImages(
        source, manifest, category, config.decoded_size, config.normal_images, Region.of(config), config.value_range
    )
    split = split_pictures(normal_images, config.calibration)
    return [tuple(normal_images.rows[index].row_key for index in indices) for indices in split.trainings]
