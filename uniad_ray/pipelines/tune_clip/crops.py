"""Labelled crops to tune CLIP on, made once: by a Ray task per category, or from a folder of sorted crops."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniad_ray import __version__
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.value_range import category_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import FitError
from uniad_ray.pipelines.cluster.session import unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster, plan_tasks
from uniad_ray.progress import Progress

if TYPE_CHECKING:
    from uniad_ray.scoring.fitting.clip.setup import ClipSetup
    from uniad_ray.training.clip.labelled_crops import LabelledCrops

_VERSION = 1
_CHOICE = {"labels", "images", "least_share", "least_confidence", "most_crops"}
"""Options of a tuning that determine its crops."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropSource:
    """Source of the crops.

    Attributes:
        archive: Root of the archive, or None for a folder.
        folder: Folder of sorted crops, or None for an archive.
        config: The fit configuration.
        setup: The namer.
        sidecar: Root of a sidecar of the archive, for stored fields of its images.
        device: `cpu`, `cuda` or `auto`.
    """

    archive: str | None
    folder: str | None
    config: FitConfig
    setup: ClipSetup
    sidecar: str | None
    device: str


@dataclass(frozen=True)
class CropFile:
    """Stored crops of one category.

    Attributes:
        location: File of the crops; see `LabelledCrops.read`.
        crops: Number of crops.
        left_out: Number of objects without a crop, by reason.
    """

    location: Location
    crops: int
    left_out: Mapping[str, int]


def plan_crops(source: CropSource, cluster: Cluster) -> str:
    """Returns a digest of all inputs that determine the crops; a Ray task loads the segmenter for it.

    Raises:
        UserError: The configuration or the weights are invalid.
    """
    import ray

    task = ray.remote(_plan).options(num_cpus=cluster.cpu_share, max_retries=2)
    try:
        found: dict[str, Any] = ray.get(task.remote(source))
    except Exception as error:
        raise unwrap(error) from None
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def make_crops(
    source: CropSource, categories: Sequence[str], folder: Location, cluster: Cluster
) -> tuple[dict[str, CropFile], dict[str, str]]:
    """Makes the missing crops of each category.

    Args:
        source: Source of the crops.
        categories: Categories; a folder of sorted crops counts as one category with an empty name.
        folder: Folder of the crops of this plan.
        cluster: Resources of the cluster.

    Returns:
        The crops by category, and the reason by category, for categories that failed.

    Raises:
        UserError: The configuration, the weights or the archive are invalid.
    """
    import ray

    places = {name: folder / f"crops-{hashlib.sha256(name.encode()).hexdigest()[:16]}" for name in categories}
    pending = [name for name, place in places.items() if not _counts(place).exists()]
    size = plan_tasks(len(pending), source.device, cluster)
    task = ray.remote(_make).options(num_cpus=size.cpus, num_gpus=size.gpus, max_retries=2)
    references = {task.remote(source, name, places[name], size.threads): name for name in pending}
    failed: dict[str, str] = {}
    with Progress("segmenting", sum(_images_of(source, name) for name in pending)) as progress:
        while references:
            (reference, *_), _ = ray.wait(list(references), num_returns=1)
            name = references.pop(reference)
            try:
                ray.get(reference)
            except Exception as error:
                cause = unwrap(error)
                if not isinstance(cause, FitError) or len(categories) == 1:
                    raise cause from None
                failed[name] = str(cause)
                _logger.warning("category %s gives no crops: %s", name, cause)
            progress.advance(_images_of(source, name))
    files = {name: _read_counts(place) for name, place in places.items() if name not in failed}
    return files, failed


def _images_of(source: CropSource, category: str) -> int:
    """Returns the maximum number of images of a category to segment."""
    if source.archive is None:
        return 0
    labels = read_manifest(Location.parse(source.archive)).categories[category].labels
    there = sum(count for key, count in labels.items() if key.endswith("/normal") and not key.startswith("test/"))
    return min(there, source.setup.namer.tuning.images)


def _crops(place: Location) -> Location:
    return Location(place.bucket, f"{place.path}.safetensors")


def _counts(place: Location) -> Location:
    """Returns the location of the counts. They are written last; crops without them are made again."""
    return Location(place.bucket, f"{place.path}.json")


def _read_counts(place: Location) -> CropFile:
    document = _counts(place).read_json()
    return CropFile(_crops(place), document["crops"], document["left_out"])


def _plan(source: CropSource) -> dict[str, Any]:
    """Collects the inputs that determine the crops, as a Ray task; loads the networks for their digests."""
    from uniad_ray.perception.weights.model_folders import resolve_folder
    from uniad_ray.scoring.fitting.clip.object_labels import labelling_pipeline

    options = source.setup.namer
    found: dict[str, Any] = {
        "version": _VERSION,
        "code_version": __version__,
        "texts": options.texts,
        "tuning": options.tuning.model_dump(mode="json", include=_CHOICE),
        "base": resolve_folder(options.weights).sha256,
        "padding": source.setup.padding,
        "seed": source.config.seed,
    }
    if source.archive is not None:
        pipeline = labelling_pipeline(source.config, source.setup, device="cpu")
        found |= {
            "archive": read_manifest(Location.parse(source.archive)).digest,
            "longest_side": source.config.longest_side,
            "image_size": source.config.image_size,
            "value_range": source.config.value_range,
            "extractors": pipeline.lineage(pipeline.provides),
        }
    else:
        paths = sorted(path for path in Path(str(source.folder)).glob("*/*") if path.is_file())
        found["files"] = [
            [path.relative_to(str(source.folder)).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()]
            for path in paths
        ]
    return found


def _make(source: CropSource, category: str, place: Location, threads: int) -> None:
    """Makes the crops of one category, as a Ray task."""
    from uniad_ray.pipelines.cluster.devices import choose_device, limit_threads
    from uniad_ray.scoring.fitting.clip.object_labels import label_objects, labelling_pipeline
    from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
    from uniad_ray.sidecars.reader import fields_of_normal_images
    from uniad_ray.training.clip.crop_classifier import CropClassifier
    from uniad_ray.training.clip.labelled_crops import LabelledCrops, read_crop_folder

    limit_threads(threads)
    device = choose_device(source.device)
    setup = source.setup
    classifier = CropClassifier(setup.name, setup.namer.weights, setup.namer.texts, device)
    if source.archive is None:
        crops = read_crop_folder(
            Path(str(source.folder)), setup.namer.classes, side=classifier.side, padding=setup.padding
        )
        _store(LabelledCrops.at_most(crops.crops, setup.namer.tuning.most_crops, {}, source.config.seed), place)
        return
    archive = Location.parse(source.archive)
    manifest = read_manifest(archive)
    config = category_config(source.config, archive, manifest, category)
    normal_images = ArchiveNormalImages(
        archive, manifest, category, config.decoded_size, value_range=config.value_range
    )
    pipeline = labelling_pipeline(config, setup, device=device)
    stored = None
    if source.sidecar is not None:
        stored = fields_of_normal_images(
            source.sidecar, manifest.digest, category, normal_images.rows, pipeline, config.decoded_size
        )
    with normal_images.naming_images():
        _store(label_objects(normal_images, category, config, setup, pipeline, classifier, stored=stored), place)


def _store(crops: LabelledCrops, place: Location) -> None:
    crops.write(_crops(place))
    _counts(place).write_json({"crops": len(crops.crops), "left_out": dict(crops.left_out)})
