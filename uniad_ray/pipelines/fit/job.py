"""Fits the categories of an archive in parallel, and writes, verifies and publishes their bundles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.manifest import choose_categories, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import UserError
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers, plan_tasks
from uniad_ray.pipelines.fit.students import find_students, plan_training
from uniad_ray.pipelines.train.job import train_students
from uniad_ray.progress import Progress

if TYPE_CHECKING:
    from uniad_ray.perception.pipeline import PerceptionPipeline
    from uniad_ray.scoring.fitting.judged import Judged
    from uniad_ray.sidecars.reader import SidecarFields

_logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = ".checkpoints"
"""Folder of the trainings, under the root of the bundles."""
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

    Each category is fitted in its own Ray task. Students are trained on Ray Train: before that if the expert set always
    needs them, and otherwise for the categories whose other experts leave something to gain.

    Args:
        archive: Root of an archive.
        bundles: Root of the bundles.
        config: The fit configuration.
        categories: Categories to fit; default all.
        sidecar: Root of a sidecar of the archive. Its matching features are reused; the bundles do not depend on it.
        known_defects: Folder of images with known defects, for the expert selection; see `KnownDefects.read`.
        publish: Whether to point each category to its new version once it is verified.
        accept_unusual: Whether to publish even if some normal images look unusual.
        device: `cpu`, `cuda` or `auto`.
        workers: Number of processes that train students; default one per student, up to the number of GPUs or CPUs.
        checkpoints: Root of the trainings, which are resumed or reused; default is a folder under `bundles`.
        address: Ray cluster to join; by default, Ray starts on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or lacks a category.
        ConfigError: An option of a component is invalid.
        SidecarError: The sidecar is missing, unfinished, corrupt, or belongs to another archive.
    """
    from uniad_ray.scoring.fitting.workload import images_of_fit

    source = Location.parse(archive)
    manifest = read_manifest(source)
    wanted = choose_categories(source, manifest, categories)
    if sidecar is not None:
        from uniad_ray.sidecars.reader import note_recomputed, open_sidecar

        sidecar = Location.parse(sidecar).uri
        open_sidecar(sidecar, manifest.digest).note_missing(wanted)
    totals = {name: images_of_fit(_count_normal(manifest.categories[name].labels), config) for name in wanted}
    root = Location.parse(bundles)
    task = _FitTask(
        source.uri,
        root.uri,
        config,
        sidecar,
        None if known_defects is None else Location.parse(known_defects).uri,
        tuple(wanted),
        publish,
        accept_unusual,
        device,
        totals,
    )
    kept = Location.parse(checkpoints) if checkpoints else root / CHECKPOINTS_NAME
    results: list[FittedBundle] = []
    failed: dict[str, str] = {}
    left: dict[str, Judged | None] = dict.fromkeys(wanted)
    with ray_session(address) as cluster:
        needed = find_students(config, cluster)
        if needed.may_be_omitted:
            fitted, left, failed = _fit_in_parallel(left, task, cluster)
            results += fitted
        if needed.names and left:
            jobs, refused = plan_training(source.uri, list(left), config, needed.names, cluster)
            trained = train_students(
                source.uri,
                config,
                jobs,
                kept,
                sidecar=sidecar,
                cluster=cluster,
                workers=Workers(workers, device=device),
            )
            refused |= {job.category: trained.failed[job.key] for job in jobs if job.key in trained.failed}
            failed |= refused
            left = {name: judged for name, judged in left.items() if name not in refused}
            task = replace(task, students={key: location.uri for key, location in trained.states.items()})
        fitted, _, refused = _fit_in_parallel(left, task, cluster)
        results += fitted
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
        totals: Estimated number of images to advance the progress by, by category.
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
    students: Mapping[str, str] | None = None


_NORMAL_IMAGES = ("train/normal", "validation/normal")


def _count_normal(labels: Mapping[str, int]) -> int:
    """Returns the number of normal images to fit on; duplicates are not known yet."""
    return sum(count for key, count in labels.items() if key in _NORMAL_IMAGES)


def _fit_in_parallel(
    categories: Mapping[str, Judged | None], task: _FitTask, cluster: Cluster
) -> tuple[list[FittedBundle], dict[str, Judged | None], dict[str, str]]:
    """Fits categories in Ray tasks.

    Args:
        categories: Scores by the experts that have judged the category's images before, or None.
        task: Settings of all tasks.
        cluster: Resources of the cluster.

    Returns:
        The bundles; scores so far of the categories that need a student; and the reason by category that failed.
    """
    import ray

    if not categories:
        return [], {}, {}
    size = plan_tasks(len(categories), task.device, cluster)
    counter = ray.remote(_Counter).options(num_cpus=0).remote()
    fit_one = ray.remote(_fit_one).options(num_cpus=size.cpus, num_gpus=size.gpus, max_retries=2)
    pending = {fit_one.remote(name, task, judged, size.threads, counter): name for name, judged in categories.items()}
    results: list[FittedBundle] = []
    unfinished: dict[str, Judged | None] = {}
    failed: dict[str, str] = {}
    seen = 0
    with Progress("fitting", sum(task.totals[name] for name in categories)) as progress:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
            total = ray.get(counter.read.remote())
            progress.advance(total - seen)
            seen = total
            for reference in ready:
                name = pending.pop(reference)
                try:
                    found = ray.get(reference)
                except Exception as error:  # a failed category does not stop the others
                    cause = unwrap(error)
                    if not isinstance(cause, UserError):
                        raise
                    failed[name] = str(cause)
                    _logger.warning("category %s is not fitted: %s", name, cause)
                    continue
                if isinstance(found, dict):
                    results.append(FittedBundle.model_validate(found))
                else:
                    unfinished[name] = found
    return results, unfinished, failed


class _Counter:
    """Actor that counts the images of all tasks, for the progress line."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, images: int) -> None:
        self._count += images

    def read(self) -> int:
        return self._count


def _fit_one(
    category: str, task: _FitTask, judged: Judged | None, threads: int, counter: Any
) -> dict[str, Any] | Judged:
    """Fits, writes, verifies and publishes the bundle of a category, as a Ray task.

    Returns:
        The fields of the `FittedBundle`; or the scores so far if a student is needed that is not trained.
    """
    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.pipelines.fit.students import find_trained
    from uniad_ray.scoring.bundles.store import BundleStore
    from uniad_ray.scoring.fitting.category import CategoryFit
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
        "skipped": dict(sorted(normal_images.skipped.items())),
        "extractors": dict(fitted.extractors),
    }
    unusual = normal_images.by_source_uri(fitted.unusual)
    store = BundleStore(task.bundles)
    written = store.write(category, config, fitted.calibration, lineage, fitted.files)
    bundle = store.load(category, written.version)
    bundle.check_reference(bundle.scorer(device=chosen))
    selection = written.calibration.selection
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
        threshold=written.calibration.threshold.value,
        skipped=normal_images.skipped | known.skipped,
        unusual=unusual,
        published=is_published,
        recomputed=tuple(sorted(recomputed)),
        known_defects=len(known),
        used_known_defects=bool(selection is not None and selection.known_defects),
    ).model_dump()
