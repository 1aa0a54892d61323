"""Fits the categories of an archive in parallel, and writes, verifies and publishes their bundles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniad_ray.archive.manifest import choose_categories, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig, NormalImagesConfig
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
"""Folder below the bundles for trainings."""
_POLL_SECONDS = 0.5


class FittedBundle(StrictModel):
    """What a fit made of one category.

    Attributes:
        category: Category.
        version: Version of the bundle.
        digest: sha256 of its manifest.
        method: How it was calibrated: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        fit_images: Normal images in the fit.
        held_out_images: Held-out scores behind the threshold.
        threshold: Threshold on the calibrated scale.
        skipped: Reason by source URI of training images that could not be decoded.
        unusual: What is unusual, by source URI of normal images that do not look like the others. Unless they are
            accepted, the bundle is written and verified, but not published.
        published: Whether the category's pointer now names this version.
        recomputed: Fields that were computed although the sidecar has them, since it has them of other weights, options
            or code.
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


class FitReport(StrictModel):
    """What a fit did.

    Attributes:
        bundles: Root of the bundles.
        fitted: One entry a category that was fitted.
        failed: Reason by category of those that were not; nothing of them is published.
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
    publish: bool = True,
    accept_unusual: bool = False,
    device: str = "auto",
    workers: int | None = None,
    checkpoints: str | None = None,
    address: str | None = None,
) -> FitReport:
    """Fits a bundle for each category, each in a Ray task of its own; students are trained before, on Ray Train.

    Args:
        archive: Root of an archive.
        bundles: Root of the bundles.
        config: The fit configuration.
        categories: Categories to fit; default all of the archive.
        sidecar: Root of a sidecar of the archive; what it holds of frozen networks as the configuration needs it is not
            computed again, which changes no bundle.
        publish: Move each category's pointer to its new version once it is verified.
        accept_unusual: Publish also where some normal images do not look like the others.
        device: `cpu`, `cuda` or `auto`.
        workers: Processes that train students; default one a student, as far as there are GPUs or CPUs.
        checkpoints: Where trainings are kept, so that none is done twice; default is below the bundles.
        address: Ray cluster to join; default is a Ray on this machine.

    Raises:
        ArchiveError: The archive cannot be read, or a category is not in it.
        ConfigError: A component's options are wrong.
        SidecarError: The sidecar is missing, unfinished, damaged, or of another archive.
    """
    source = Location.parse(archive)
    manifest = read_manifest(source)
    wanted = choose_categories(source, manifest, categories)
    if sidecar is not None:
        from uniad_ray.sidecars.reader import note_recomputed, open_sidecar

        sidecar = Location.parse(sidecar).uri
        open_sidecar(sidecar, manifest.digest).note_missing(wanted)
    totals = {name: _images_to_extract(manifest.categories[name].labels, config.normal_images) for name in wanted}
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
                _FitTask(source.uri, root.uri, config, sidecar, publish, accept_unusual, device, students),
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
    """What the fits of all categories have in common, as every Ray task is told.

    Attributes:
        archive: Root of the archive.
        bundles: Root of the bundles.
        config: The fit configuration.
        sidecar: Root of a sidecar of the archive.
        publish: Whether verified bundles are published.
        accept_unusual: Whether that holds where some normal images do not look like the others.
        device: `cpu`, `cuda` or `auto`.
        students: URI of the trained student by job key.
    """

    archive: str
    bundles: str
    config: FitConfig
    sidecar: str | None
    publish: bool
    accept_unusual: bool
    device: str
    students: Mapping[str, str]


_NORMAL_IMAGES = ("train/normal", "validation/normal")


def _images_to_extract(labels: Mapping[str, int], choice: NormalImagesConfig) -> int:
    """Normal images of a category that are taken, with their altered copies, if they are all different."""
    there = sum(count for key, count in labels.items() if key in _NORMAL_IMAGES)
    taken = min(there, choice.most or there)
    return taken and taken * (1 + choice.copies_of_each(taken))


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
            except Exception as error:  # the other categories go on, whatever happened to this one
                cause = unwrap(error)
                if not isinstance(cause, UserError):
                    raise
                failed[name] = str(cause)
                _logger.warning("category %s is not fitted: %s", name, cause)
    return results, failed


class _Counter:
    """Counts extracted images of all tasks, for the progress line."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, images: int) -> None:
        self._count += images

    def read(self) -> int:
        return self._count


def _fit_one(category: str, task: _FitTask, threads: int, counter: Any) -> dict[str, Any]:
    """One Ray task: fit, write, load what was written, compare, publish."""
    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.pipelines.fit.students import find_trained
    from uniad_ray.scoring.bundles.store import BundleStore
    from uniad_ray.scoring.fitting.category import fit_category
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.sidecars.reader import fields_of_normal_images

    limit_threads(threads)
    chosen = choose_device(task.device)
    config = task.config
    source = Location.parse(task.archive)
    manifest = read_manifest(source)
    normal_images = ArchiveNormalImages(source, manifest, category, config.input_size, config.normal_images)
    recomputed: set[str] = set()

    def find_stored(pipeline: PerceptionPipeline) -> SidecarFields:
        found = fields_of_normal_images(
            str(task.sidecar), manifest.digest, category, normal_images.rows, pipeline, config.input_size
        )
        recomputed.update(found.stale)
        return found

    with normal_images.naming_images():
        fitted = fit_category(
            normal_images,
            config,
            device=chosen,
            train=find_trained(category, normal_images.rows, task.students),
            on_extracted=lambda images: counter.add.remote(images),
            find_stored=None if task.sidecar is None or normal_images.has_copies else find_stored,
        )
    images = sum(row.copy_of is None for row in normal_images.rows)
    lineage = {
        "archive": {"uri": source.uri, "digest": manifest.digest},
        "normal_images": images,
        "altered_copies": len(normal_images.rows) - images,
        "skipped": dict(sorted(normal_images.skipped.items())),
        "extractors": dict(fitted.extractors),
    }
    unusual = normal_images.by_source_uri(fitted.unusual)
    store = BundleStore(task.bundles)
    written = store.write(category, config, fitted.calibration, lineage, fitted.files)
    bundle = store.load(category, written.version)
    bundle.check_reference(bundle.scorer(device=chosen))
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
        skipped=normal_images.skipped,
        unusual=unusual,
        published=is_published,
        recomputed=tuple(sorted(recomputed)),
    ).model_dump()
