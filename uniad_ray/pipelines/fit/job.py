"""Fits the categories of an archive in parallel, and writes, verifies and publishes their bundles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from uniad_ray.archive.exclusions import find_images, read_exclusions
from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.manifest import ArchiveManifest, choose_categories, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import UserError
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers, plan_tasks
from uniad_ray.pipelines.fit.students import plan_training
from uniad_ray.pipelines.train.job import train_students
from uniad_ray.progress import Progress

if TYPE_CHECKING:
    from uniad_ray.perception.pipeline import PerceptionPipeline
    from uniad_ray.sidecars.reader import SidecarFields

_logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = ".checkpoints"
"""Folder of the trainings, under the root of the bundles."""
HIGHEST_IMAGES = 5
"""Number of normal images in the report that score highest."""
_POLL_SECONDS = 0.5


class FittedBundle(StrictModel):
    """Fitted bundle of one category.

    Attributes:
        category: Category.
        version: Version of the bundle.
        digest: SHA-256 of its manifest.
        method: Calibration method: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        fit_images: Number of normal images in the fit.
        held_out_images: Number of held-out scores that set the threshold.
        threshold: Threshold on the calibrated scale.
        skipped: Reason by source URI, for training images that could not be decoded.
        unusual: Finding by source URI, for normal images that differ from the others. Unless accepted, they keep the
            verified bundle from being published.
        published: Whether the category's pointer now names this version.
        recomputed: Fields of the sidecar that were computed again, because its weights, options or code differ.
        known_defects: Number of known defects that were given.
        used_known_defects: Whether the expert selection used them; a few are not enough.
        excluded: Reason by source URI, for images that were left out on request.
        twins: Number of normal images that show the picture of another one; each picture counts once.
        false_positive_rate: Fraction of normal images asked for above the threshold.
        threshold_method: `empirical`, `generalised_pareto` or `gaussian_tail`.
        rate_interval: 90 % interval of the fraction of new normal images above the threshold.
        highest: Score by source URI of the normal images that score highest when held out, the highest first.
    """

    category: str
    version: str
    digest: str
    method: str
    fit_images: int
    held_out_images: int
    threshold: float
    skipped: dict[str, str]
    unusual: dict[str, str]
    published: bool
    recomputed: tuple[str, ...] = ()
    known_defects: int = 0
    used_known_defects: bool = False
    excluded: dict[str, str] = Field(default_factory=dict)
    twins: int = 0
    false_positive_rate: float | None = None
    threshold_method: str | None = None
    rate_interval: tuple[float, float] | None = None
    highest: dict[str, float] = Field(default_factory=dict)


class FitReport(StrictModel):
    """Result of a fit.

    Attributes:
        bundles: Root of the bundles.
        fitted: Fitted bundles, one per category.
        failed: Reason by category, for categories that failed; they publish no bundle.
    """

    bundles: str
    fitted: tuple[FittedBundle, ...]
    failed: dict[str, str]


def fit(
    archive: str,
    bundles: str,
    config: FitConfig,
    *,
    categories: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    sidecar: str | None = None,
    known_defects: str | None = None,
    publish: bool = True,
    accept_unusual: bool = False,
    device: str = "auto",
    workers: int | None = None,
    checkpoints: str | None = None,
    address: str | None = None,
) -> FitReport:
    """Fits a bundle for each category.

    Students are trained first, on Ray Train. Each category is then fitted in its own Ray task.

    Args:
        archive: Root of an archive.
        bundles: Root of the bundles.
        config: The fit configuration.
        categories: Categories to fit; default all.
        exclude: Names of images to leave out: source URIs, their ends, or sha256; see `archive.exclusions`.
        sidecar: Root of a sidecar of the archive. Its matching features are reused; the bundles do not depend on it.
        known_defects: Folder of images with known defects, for the expert selection; see `KnownDefects.read`.
        publish: Whether to point each category to its new version once it is verified.
        accept_unusual: Whether to publish even if some normal images look unusual.
        device: `cpu`, `cuda` or `auto`.
        workers: Number of processes that train students; default one per student, up to the number of GPUs or CPUs.
        checkpoints: Root of the trainings, which are resumed or reused; default is a folder under `bundles`.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or lacks a category or an image to leave out.
        ConfigError: An option of a component is invalid.
        SidecarError: The sidecar is missing, unfinished, corrupt, or belongs to another archive.
    """
    from uniad_ray.scoring.fitting.workload import images_of_fit

    source = Location.parse(archive)
    manifest = read_manifest(source)
    wanted = choose_categories(source, manifest, categories)
    config, excluded = _without_images(config, source, manifest, wanted, exclude)
    if sidecar is not None:
        from uniad_ray.sidecars.reader import note_recomputed, open_sidecar

        sidecar = Location.parse(sidecar).uri
        open_sidecar(sidecar, manifest.digest).note_missing(wanted)
    totals = {name: images_of_fit(_count_normal(manifest.categories[name].labels), config) for name in wanted}
    root = Location.parse(bundles)
    with ray_session(address) as cluster:
        jobs, failed = plan_training(source.uri, wanted, config, cluster)
        kept = Location.parse(checkpoints) if checkpoints else root / CHECKPOINTS_NAME
        trained = train_students(
            source.uri,
            config,
            jobs,
            kept,
            sidecar=sidecar,
            cluster=cluster,
            workers=Workers(workers, device=device),
        )
        failed |= {job.category: trained.failed[job.key] for job in jobs if job.key in trained.failed}
        students = {key: location.uri for key, location in trained.states.items()}
        fitted = [name for name in wanted if name not in failed]
        with Progress("fitting", sum(totals[name] for name in fitted)) as progress:
            results, refused = _fit_in_parallel(
                fitted,
                _FitTask(
                    source.uri,
                    root.uri,
                    config,
                    sidecar,
                    None if known_defects is None else Location.parse(known_defects).uri,
                    tuple(wanted),
                    publish,
                    accept_unusual,
                    device,
                    students,
                    totals,
                    excluded,
                ),
                cluster,
                progress,
            )
    failed |= refused
    if sidecar is not None:
        for entry in results:
            note_recomputed(entry.category, entry.recomputed)
    return FitReport(
        bundles=root.uri,
        fitted=tuple(sorted(results, key=lambda entry: entry.category)),
        failed=dict(sorted(failed.items())),
    )


@dataclass(frozen=True)
class _FitTask:
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
        students: URI of the trained student by job key.
        totals: Estimated number of images to advance the progress by, by category.
        excluded: Reason by category and source URI, for images that are left out on request.
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
    students: Mapping[str, str]
    totals: Mapping[str, int]
    excluded: Mapping[str, Mapping[str, str]]


def _without_images(
    config: FitConfig, archive: Location, manifest: ArchiveManifest, categories: Sequence[str], exclude: Sequence[str]
) -> tuple[FitConfig, dict[str, dict[str, str]]]:
    """Returns the configuration with all images to leave out by sha256, and their reasons by category and URI."""
    names = [*config.normal_images.exclude, *exclude]
    found = find_images(archive, manifest, names, categories)
    reasons: dict[str, dict[str, str]] = {name: {} for name in categories}
    for change in read_exclusions(archive).values():
        if change.category in reasons:
            reasons[change.category][change.source_uri] = change.reason
    for image in found.values():
        reasons[image.category].setdefault(image.source_uri, "left out of this fit")
    normal_images = config.normal_images.model_copy(
        update={"exclude": tuple(sorted({image.image_id for image in found.values()}))}
    )
    return config.model_copy(update={"normal_images": normal_images}), reasons


_NORMAL_IMAGES = ("train/normal", "validation/normal")


def _count_normal(labels: Mapping[str, int]) -> int:
    """Returns the number of normal images to fit on; duplicates are not known yet."""
    return sum(count for key, count in labels.items() if key in _NORMAL_IMAGES)


def _fit_in_parallel(
    categories: Sequence[str], task: _FitTask, cluster: Cluster, progress: Progress
) -> tuple[list[FittedBundle], dict[str, str]]:
    import ray

    size = plan_tasks(len(categories), task.device, cluster)
    counter = ray.remote(_Counter).options(num_cpus=0).remote()
    fit_one = ray.remote(_fit_one).options(num_cpus=size.cpus, num_gpus=size.gpus, max_retries=2)
    pending = {fit_one.remote(name, task, size.threads, counter): name for name in categories}
    results: list[FittedBundle] = []
    failed: dict[str, str] = {}
    seen = 0
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
        total = ray.get(counter.read.remote())
        progress.advance(total - seen)
        seen = total
        for reference in ready:
            name = pending.pop(reference)
            try:
                results.append(FittedBundle.model_validate(ray.get(reference)))
            except Exception as error:  # a failed category does not stop the others
                cause = unwrap(error)
                if not isinstance(cause, UserError):
                    raise
                failed[name] = str(cause)
                _logger.warning("category %s is not fitted: %s", name, cause)
    return results, failed


class _Counter:
    """Actor that counts the images of all tasks, for the progress line."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, images: int) -> None:
        self._count += images

    def read(self) -> int:
        return self._count


def _fit_one(category: str, task: _FitTask, threads: int, counter: Any) -> dict[str, Any]:
    """Fits, writes, verifies and publishes the bundle of a category, as a Ray task."""
    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.pipelines.fit.students import find_trained
    from uniad_ray.scoring.bundles.store import BundleStore
    from uniad_ray.scoring.fitting.category import fit_category
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.scoring.fitting.selection.known_defects import KnownDefects
    from uniad_ray.sidecars.reader import fields_of_normal_images

    limit_threads(threads)
    chosen = choose_device(task.device)
    source = Location.parse(task.archive)
    manifest = read_manifest(source)
    config = with_image_size(task.config, source, manifest, category)
    normal_images = ArchiveNormalImages(source, manifest, category, config.decoded_size, config.normal_images)
    folder = None if task.known_defects is None else Location.parse(task.known_defects)
    known = (
        KnownDefects.read(source, manifest, category, config.decoded_size, folder, task.categories)
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

    with normal_images.naming_images():
        fitted = fit_category(
            normal_images,
            config,
            device=chosen,
            train=find_trained(category, normal_images.rows, task.students),
            on_progress=advance,
            find_stored=None if task.sidecar is None or normal_images.has_copies else find_stored,
            known=known.defects,
        )
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
    if is_published:
        store.publish(category, written.version)
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
        used_known_defects=bool(selection is not None and selection.known_defects),
        excluded=lineage["excluded"],
        twins=fitted.twins,
        highest={uri: highest[key] for uri, key in sorted(uris.items(), key=lambda item: -highest[item[1]])},
    ).model_dump()
