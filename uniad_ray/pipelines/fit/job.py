"""Fits the categories of an archive in parallel, and trains the students that they need."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from uniad_ray.archive.deletion import is_deleted
from uniad_ray.archive.exclusions import NamedImage, find_images, read_exclusions
from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.manifest import ArchiveManifest, choose_categories, read_manifest
from uniad_ray.archive.normal_rows import read_normal_rows
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.config.region import RegionMask
from uniad_ray.errors import ConfigError, UserError
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers, plan_tasks, tasks_reason
from uniad_ray.pipelines.fit.opening import FitTask
from uniad_ray.pipelines.fit.report import FitReport, FittedBundle
from uniad_ray.pipelines.fit.students import find_students, plan_training
from uniad_ray.pipelines.fit.task import fit_one
from uniad_ray.pipelines.train.job import train_students
from uniad_ray.progress import Progress

if TYPE_CHECKING:
    from uniad_ray.scoring.fitting.judged import Judged

_logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = ".checkpoints"
"""Folder of the trainings, under the root of the bundles."""
_POLL_SECONDS = 0.5


def fit(
    archive: str,
    bundles: str,
    config: FitConfig,
    *,
    categories: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    regions: Sequence[str] = (),
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
        exclude: Names of images to leave out: source URIs, their ends, or sha256; see `archive.exclusions`.
        regions: Files with the part of the images that counts, as `FILE` or `CATEGORY=FILE`; see `read_region`.
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
    config = _with_regions(config, source, manifest, wanted, regions)
    if sidecar is not None:
        from uniad_ray.sidecars.reader import note_recomputed, open_sidecar

        sidecar = Location.parse(sidecar).uri
        open_sidecar(sidecar, manifest.digest).note_missing(wanted)
    totals = {name: images_of_fit(_count_normal(manifest.categories[name].labels), config) for name in wanted}
    root = Location.parse(bundles)
    task = FitTask(
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
        excluded,
    )
    kept = Location.parse(checkpoints) if checkpoints else root / CHECKPOINTS_NAME
    results: list[FittedBundle] = []
    failed: dict[str, str] = {}
    left: dict[str, Judged | None] = dict.fromkeys(wanted)
    with ray_session(address) as cluster:
        needed = find_students(config, cluster)
        if needed.may_be_omitted or not needed.names:
            fitted, left, failed = _fit_in_parallel(left, task, cluster)
            results += fitted
        # Where the selection decides on students, it tries them after one training of several.
        for is_trial in (True, False) if needed.may_be_omitted else (False,):
            if not left:
                break
            jobs, refused = plan_training(source.uri, list(left), config, needed.names, cluster, is_trial=is_trial)
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
            left = {name: judged for name, judged in left.items() if name not in refused}
            states = {key: location.uri for key, location in trained.states.items()}
            task = replace(task, students=states, is_trial=is_trial)
            fitted, left, unfitted = _fit_in_parallel(left, task, cluster)
            results += fitted
            failed |= refused | unfitted
    if sidecar is not None:
        for entry in results:
            note_recomputed(entry.category, entry.recomputed)
    return FitReport(
        bundles=root.uri,
        fitted=tuple(sorted(results, key=lambda entry: entry.category)),
        failed=dict(sorted(failed.items())),
    )


def _with_regions(
    config: FitConfig, archive: Location, manifest: ArchiveManifest, categories: Sequence[str], regions: Sequence[str]
) -> FitConfig:
    """Returns the configuration with the regions of the given files, `FILE` or `CATEGORY=FILE`.

    Raises:
        ConfigError: A file is no region, belongs to no category of the fit, or has not the size of its images; or a
            category is given two.
    """
    from uniad_ray.perception.region import Region
    from uniad_ray.perception.region_files import read_region

    given: dict[str, RegionMask] = {}
    for text in regions:
        named, equals, path = text.partition("=")
        category = named if equals else categories[0]
        if category not in categories or (not equals and len(categories) > 1):
            raise ConfigError(f"--region {text}: write CATEGORY=FILE with a category of {', '.join(categories)}")
        if category in given:
            raise ConfigError(f"--region {text}: {category} has two regions; draw both into one file")
        given[category] = read_region(path if equals else text)
    found = {name: mask for name, mask in config.regions.items() if name in categories} | given
    for category, mask in found.items():
        rows = read_normal_rows(archive, manifest, category, ("width", "height"))
        sizes = Counter(values for values, _, _ in rows)
        size = (mask.width, mask.height)
        if sizes and size not in sizes:
            (width, height), _ = sizes.most_common(1)[0]
            raise ConfigError(
                f"the region of {category} has {mask.width} x {mask.height} pixels, its images {width} x {height}; "
                "draw the region on one of them"
            )
        own = config.model_copy(update={"regions": {category: mask}})
        Region(mask, with_image_size(own, archive, manifest, category).decoded_size, f"the region of {category}")
    return config.model_copy(update={"regions": found})


def _without_images(
    config: FitConfig, archive: Location, manifest: ArchiveManifest, categories: Sequence[str], exclude: Sequence[str]
) -> tuple[FitConfig, dict[str, dict[str, str]]]:
    """Returns the configuration with all images to leave out by sha256, and their reasons by category and URI."""
    named = config.normal_images.exclude
    found = {
        **_of_categories(archive, manifest, named, categories),
        **find_images(archive, manifest, exclude, categories),
    }
    reasons: dict[str, dict[str, str]] = {name: {} for name in categories}
    for change in read_exclusions(archive).values():
        if change.category in reasons:
            own = reasons[change.category]
            # A path may have held several images, each left out for a reason of its own.
            known = own.get(change.source_uri)
            own[change.source_uri] = change.reason if known in (None, change.reason) else f"{known}; {change.reason}"
    for image in found.values():
        reasons[image.category].setdefault(image.source_uri, "left out of this fit")
    normal_images = config.normal_images.model_copy(
        update={"exclude": tuple(sorted({image.image_id for image in found.values()}))}
    )
    return config.model_copy(update={"normal_images": normal_images}), reasons


def _of_categories(
    archive: Location, manifest: ArchiveManifest, names: Sequence[str], categories: Sequence[str]
) -> dict[str, NamedImage]:
    """The images of the configuration, which may also name images of other categories, and deleted ones.

    Raises:
        ArchiveError: There has never been such an image, or a name fits several.
    """
    found = dict(find_images(archive, manifest, names, categories, may_miss=True))
    missing = [name for name in names if name not in found]
    if missing:
        missing = [name for name in missing if not is_deleted(archive, name)]
        find_images(archive, manifest, missing)
    return found


_NORMAL_IMAGES = ("train/normal", "validation/normal")


def _count_normal(labels: Mapping[str, int]) -> int:
    """Returns the number of normal images to fit on; duplicates are not known yet."""
    return sum(count for key, count in labels.items() if key in _NORMAL_IMAGES)


def _fit_in_parallel(
    categories: Mapping[str, Judged | None], task: FitTask, cluster: Cluster
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
    _logger.info("fitting with %s", tasks_reason(size, len(categories), Workers(device=task.device), cluster))
    counter = ray.remote(_Counter).options(num_cpus=0).remote()
    task_of = ray.remote(fit_one).options(num_cpus=size.cpus, num_gpus=size.gpus, max_retries=2)
    # Nodes may be added to a cluster that can grow, but nobody knows how many.
    workers = max(1, cluster.physical_cpus // size.count)
    pending = {task_of.remote(name, task, judged, size, workers, counter): name for name, judged in categories.items()}
    results: list[FittedBundle] = []
    unfinished: dict[str, Judged | None] = {}
    failed: dict[str, str] = {}
    seen = 0
    with Progress("fitting", sum(task.totals[name] for name in categories)) as progress:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
            total, phases = ray.get(counter.read.remote())
            progress.say(_in_words(phases, pending.values()))
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
    """Actor that counts the images of all tasks and knows what they do, for the progress line."""

    def __init__(self) -> None:
        self._count = 0
        self._phases: dict[str, str] = {}

    def add(self, images: int) -> None:
        self._count += images

    def say(self, category: str, phase: str) -> None:
        self._phases[category] = phase

    def read(self) -> tuple[int, dict[str, str]]:
        return self._count, self._phases


_MOST_PHASES = 2
"""Categories whose phase a line names."""


def _in_words(phases: Mapping[str, str], running: Collection[str]) -> str:
    """What the running categories do."""
    found = {category: phase for category, phase in sorted(phases.items()) if category in running}
    if len(running) == 1:
        return "".join(found.values())
    named = [f"{category}: {phase}" for category, phase in list(found.items())[:_MOST_PHASES]]
    more = [f"{len(running) - len(named)} more"] if named and len(running) > len(named) else []
    return "; ".join(named + more)
