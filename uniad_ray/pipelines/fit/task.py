"""The fit of one category as a Ray task: fits, writes, verifies and publishes its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import category_config
from uniad_ray.config.model import FitConfig
from uniad_ray.pipelines.fit.report import FittedBundle
from uniad_ray.pipelines.fit.students import find_trained

if TYPE_CHECKING:
    from uniad_ray.perception.pipeline import PerceptionPipeline
    from uniad_ray.scoring.fitting.judged import Judged
    from uniad_ray.sidecars.reader import SidecarFields

HIGHEST_IMAGES = 5
"""Number of normal images in the report that score highest."""


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


def fit_one(category: str, task: FitTask, judged: Judged | None, threads: int, counter: Any) -> dict[str, Any] | Judged:
    """Fits, writes, verifies and publishes the bundle of a category.

    Args:
        category: Category.
        task: Settings that all tasks share.
        judged: Scores by the experts that have judged its images before, or None.
        threads: Number of threads.
        counter: Handle of the actor that counts images.

    Returns:
        The fields of the `FittedBundle`; or the scores so far if a student is needed that is not trained.
    """
    from uniad_ray.perception.region import Region
    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.scoring.bundles.store import BundleStore
    from uniad_ray.scoring.fitting.category import CategoryFit
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.scoring.fitting.selection.known_defects import KnownDefects
    from uniad_ray.sidecars.reader import fields_of_normal_images

    limit_threads(threads)
    chosen = choose_device(task.device)
    source = Location.parse(task.archive)
    manifest = read_manifest(source)
    config = category_config(task.config, source, manifest, category)
    normal_images = ArchiveNormalImages(
        source, manifest, category, config.decoded_size, config.normal_images, Region.of(config), config.value_range
    )
    folder = None if task.known_defects is None else Location.parse(task.known_defects)
    known = (
        KnownDefects.read(source, manifest, category, config.decoded_size, folder, task.categories, config.value_range)
        if config.chosen_fusion.selection is not None
        else KnownDefects()
    )
    recomputed: set[str] = set()

    def find_stored(pipeline: PerceptionPipeline) -> SidecarFields:
        found = fields_of_normal_images(
            str(task.sidecar), manifest.digest, category, normal_images.rows, pipeline, config.decoded_size
        )
        recomputed.update(found.stale)
        return found

    left = task.totals[category]

    def advance(images: int) -> None:
        nonlocal left
        counted = min(images, left)
        left -= counted
        counter.add.remote(counted)

    with (
        normal_images.naming_images(),
        CategoryFit(
            normal_images,
            config,
            device=chosen,
            train=find_trained(category, normal_images.rows, task.students or {}),
            on_progress=advance,
            find_stored=None if task.sidecar is None or normal_images.has_copies else find_stored,
            known=known.defects,
        ) as fit,
    ):
        if judged is None:
            judged = fit.judge_first()
        if fit.wants_students(judged):
            if task.students is None:
                return judged
            judged = fit.judge_others(judged)
        fitted = fit.finish(judged)
    advance(left)
    images = sum(row.copy_of is None for row in normal_images.rows)
    lineage = {
        "archive": {"uri": source.uri, "digest": manifest.digest},
        "normal_images": images,
        "known_defects": len(known),
        "altered_copies": len(normal_images.rows) - images,
        "twins": fitted.twins,
        "skipped": dict(sorted(normal_images.skipped.items())),
        "excluded": dict(sorted(task.excluded[category].items())),
        "extractors": dict(fitted.extractors),
    }
    unusual = normal_images.by_source_uri(fitted.unusual)
    store = BundleStore(task.bundles)
    written = store.write(category, config, fitted.calibration, lineage, fitted.files)
    bundle = store.load(category, written.version)
    bundle.check_reference(bundle.scorer(device=chosen))
    selection, threshold = written.calibration.selection, written.calibration.threshold
    highest = bundle.held_out_scores.highest(HIGHEST_IMAGES)
    uris = normal_images.by_source_uri({key: key for key in highest})
    is_published = task.publish and (task.accept_unusual or not unusual)
    own_threshold = None
    if is_published:
        written, before = store.publish_fit(written)
        own_threshold = None if before is None else before.calibration.threshold.value
        threshold = written.calibration.threshold
    return FittedBundle(
        category=category,
        version=written.version,
        digest=written.digest,
        method=written.calibration.method,
        fit_images=written.calibration.fit_images,
        held_out_images=written.calibration.held_out_images,
        threshold=threshold.value,
        false_positive_rate=threshold.false_positive_rate,
        threshold_method=threshold.method,
        rate_interval=threshold.rate_interval,
        skipped=normal_images.skipped | known.skipped,
        unusual=unusual,
        published=is_published,
        recomputed=tuple(sorted(recomputed)),
        known_defects=len(known),
        large_images=()
        if (large := task.config.large_images) is None or config.large_images is large
        else large.experts,
        used_known_defects=bool(selection is not None and selection.known_defects),
        excluded=lineage["excluded"],
        twins=fitted.twins,
        own_threshold=own_threshold,
        value_range=config.value_range,
        highest={uri: highest[key] for uri, key in sorted(uris.items(), key=lambda item: -highest[item[1]])},
    ).model_dump()
