"""Opens a category for its fit: reads its normal images and known defects, and loads the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.manifest import ArchiveManifest, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import category_config
from uniad_ray.config.model import FitConfig
from uniad_ray.pipelines.fit.students import find_trained

if TYPE_CHECKING:
    from uniad_ray.perception.pipeline import PerceptionPipeline
    from uniad_ray.scoring.fitting.category import CategoryFit, JudgeElsewhere
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.scoring.fitting.perceptions import ExtractElsewhere
    from uniad_ray.scoring.fitting.rounds import SharedWork
    from uniad_ray.scoring.fitting.selection.known_defects import KnownDefects
    from uniad_ray.sidecars.reader import SidecarFields


@dataclass(frozen=True)
class FitTask:
    """Settings that all Ray tasks of a fit share.

    Attributes:
        archive: Root of the archive.
        bundles: Root of the bundles.
        config: The fit configuration.
        sidecar: Root of a sidecar of the archive, or None.
        known_defects: Folder of images with known defects, or None.
        categories: All categories of the fit.
        publish: Whether to publish verified bundles.
        accept_unusual: Whether to publish even if some normal images look unusual.
        device: `cpu`, `cuda` or `auto`.
        totals: Estimated number of images to advance the progress by, by category.
        excluded: Reason by category and source URI, for images that are left out on request.
        students: URI of the trained student by job key; None before the training.
        is_trial: Whether these are only the first students of each category, to find out if more are worth it.
        parallel_from: Seconds that extraction, or the remaining rounds, must take in one process to be spread over
            others: processes take time to start.
    """

    archive: str
    bundles: str
    config: FitConfig
    sidecar: str | None
    known_defects: str | None
    categories: tuple[str, ...]
    publish: bool
    accept_unusual: bool
    device: str
    totals: Mapping[str, int]
    excluded: Mapping[str, Mapping[str, str]]
    students: Mapping[str, str] | None = None
    is_trial: bool = False
    parallel_from: float = 30.0


class CountedImages:
    """Counts the images of a category's fit for the progress line, at most as many as were estimated."""

    def __init__(self, counter: Any, category: str, most: int) -> None:
        """Stores the handle of the actor that counts for all tasks, the category, and the estimate."""
        self._counter = counter
        self._category = category
        self.left = most

    def __call__(self, images: int) -> None:
        """Counts some more images."""
        counted = min(images, self.left)
        self.left -= counted
        self._counter.add.remote(counted)

    def say(self, phase: str) -> None:
        """Names what the fit does now."""
        self._counter.say.remote(self._category, phase)

    def handed_over(self, images: int) -> CountedImages:
        """Lets another process count some of the images that are left."""
        counted = min(images, self.left)
        self.left -= counted
        return CountedImages(self._counter, self._category, counted)

    def finish(self) -> None:
        """Counts all images that are left."""
        self(self.left)


@dataclass(frozen=True)
class CategoryImages:
    """The normal images of a category, before networks are loaded.

    Attributes:
        source: Root of the archive.
        manifest: Its manifest.
        config: The fit configuration with the options of the category.
        images: The normal images.
        recomputed: Names of stored fields that could not be used.
    """

    source: Location
    manifest: ArchiveManifest
    config: FitConfig
    images: ArchiveNormalImages
    recomputed: set[str] = field(default_factory=set)

    def stored_fields(self, category: str, sidecar: str, pipeline: PerceptionPipeline) -> SidecarFields:
        """Fields in a sidecar that match a pipeline."""
        from uniad_ray.sidecars.reader import fields_of_normal_images

        found = fields_of_normal_images(
            sidecar, self.manifest.digest, category, self.images.rows, pipeline, self.config.decoded_size
        )
        self.recomputed.update(found.stale)
        return found


@dataclass(frozen=True, kw_only=True)
class OpenedCategory(CategoryImages):
    """A category that is ready to be fitted.

    Attributes:
        known: Its known defects.
        fit: The fit.
    """

    known: KnownDefects
    fit: CategoryFit


def read_images(category: str, task: FitTask) -> CategoryImages:
    """Reads which normal images a category has.

    Raises:
        UserError: The archive cannot be read, or the category has no normal images.
    """
    from uniad_ray.perception.region import Region
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages

    source = Location.parse(task.archive)
    manifest = read_manifest(source)
    config = category_config(task.config, source, manifest, category)
    images = ArchiveNormalImages(
        source, manifest, category, config.decoded_size, config.normal_images, Region.of(config), config.value_range
    )
    return CategoryImages(source, manifest, config, images)


@contextmanager
def open_category(
    category: str,
    task: FitTask,
    device: str,
    progress: CountedImages,
    *,
    elsewhere: JudgeElsewhere | None = None,
    extract_elsewhere: ExtractElsewhere | None = None,
    shared: SharedWork | None = None,
) -> Iterator[OpenedCategory]:
    """Opens a category; its perceptions are deleted at the end.

    Args:
        category: Category.
        task: Settings that all tasks share.
        device: `cpu` or `cuda`.
        progress: Called with the numbers of images.
        elsewhere: Judges rounds in other processes.
        extract_elsewhere: Extracts fields in other processes.
        shared: Work of the process that started the fit; known defects and the sidecar are then not read.

    Raises:
        UserError: The category cannot be fitted.
    """
    from uniad_ray.scoring.fitting.category import CategoryFit
    from uniad_ray.scoring.fitting.selection.known_defects import KnownDefects

    read = read_images(category, task)
    source, manifest, config, images = read.source, read.manifest, read.config, read.images
    known = KnownDefects()
    if config.chosen_fusion.selection is not None and shared is None:
        folder = None if task.known_defects is None else Location.parse(task.known_defects)
        known = KnownDefects.read(
            source, manifest, category, config.decoded_size, folder, task.categories, config.value_range
        )
    find_stored = None
    if task.sidecar is not None and not images.has_copies and shared is None:
        find_stored = partial(read.stored_fields, category, task.sidecar)
    with (
        images.naming_images(),
        CategoryFit(
            images,
            config,
            device=device,
            train=find_trained(category, images.rows, task.students or {}),
            on_progress=progress,
            on_phase=progress.say,
            find_stored=find_stored,
            known=known.defects,
            elsewhere=elsewhere,
            extract_elsewhere=extract_elsewhere,
            shared=shared,
        ) as fit,
    ):
        yield OpenedCategory(**vars(read), known=known, fit=fit)
