"""The step that measures the images of a night and looks for drift."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np

from uniad_ray.archive.exclusions import read_exclusions
from uniad_ray.archive.ingest.moves import present_shards
from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.naming import dataset_segment
from uniad_ray.archive.normal_rows import FITTED_SPLITS, read_rows
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import read_table
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.region import RegionMask
from uniad_ray.config.value_range import ValueRange
from uniad_ray.drift.findings import Reference, find_drift
from uniad_ray.drift.samples import SampledImage, View, read_sample, sample_images, values, with_scores, write_sample
from uniad_ray.errors import ArchiveError, BundleError, ConfigError, StoreError, WeightsError
from uniad_ray.nights.config import NightlyConfig
from uniad_ray.nights.folder import Night, Nights
from uniad_ray.nights.model import Drifted, Ingested, Scored
from uniad_ray.perception.region import Region
from uniad_ray.runs.reader import RunReader
from uniad_ray.scoring.bundles.mean_features import mean_features
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration_scores import FILE_NAME

_HISTORY: Final = ("brightness", "score")

Sample = dict[str, list[SampledImage]]


def look_for_drift(config: NightlyConfig, nights: Nights, night: Night, ingested: Ingested, scored: Scored) -> Drifted:
    """Measures a sample of the new images, stores it, and compares it with the fits and with the last nights."""
    if scored.run is None:
        return Drifted()
    archive, store = Location.parse(config.archive), BundleStore(config.bundles)
    rows = RunReader(night.run).scores(["row_key", "score", "experts"])
    manifest = read_manifest(archive)
    own = list(chunks(manifest, shards=present_shards(archive, manifest, ingested.shards)))
    tonight: Sample = {}
    references: dict[Reference, Sample] = {"calibration": {}, "last nights": {}}
    notes = []
    for category, counts in scored.categories.items():
        view, note = _view(store, category, counts.bundle_version, config.drift.feature_images)
        notes += [note] if note else []
        new = [chunk for chunk in own if chunk.category == category]
        tonight[category] = with_scores(sample_images(archive, new, config.drift.images, view=view), rows)
        try:
            references["calibration"][category] = _fitted(config, night.work, category, counts.bundle_version, view)
        except (ArchiveError, BundleError, StoreError) as error:
            notes.append(f"{category}: not compared with the images of the fit: {error}")
    write_sample(night.sample, [image for images in tonight.values() for image in images])
    for earlier in nights.before(night, config.drift.nights):
        if earlier.sample.exists():
            for image in _comparable(store, earlier, scored):
                references["last nights"].setdefault(image.category, []).append(image)
    medians = {
        category: {measure: float(np.median(known)) for measure in _HISTORY if len(known := values(images, measure))}
        for category, images in tonight.items()
    }
    return Drifted(findings=find_drift(tonight, references, config.drift), medians=medians, notes=tuple(notes))


def _view(store: BundleStore, category: str, version: str, feature_images: int) -> tuple[View, str | None]:
    """How a bundle sees images, and why it measures no features; all of an image if the bundle is gone."""
    try:
        seen = store.manifest(category, version).config
    except (BundleError, StoreError):
        return View(), None
    region = Region.of(seen)
    view = View(seen.value_range, None if region is None else region.inside)
    if not feature_images:
        return view, None
    try:
        features = mean_features(store.load(category, version))
    except (BundleError, ConfigError, StoreError, WeightsError) as error:
        return view, f"{category}: features are not compared: {error}"
    return replace(view, features=features, feature_images=feature_images), None


def _comparable(store: BundleStore, earlier: Night, scored: Scored) -> Iterator[SampledImage]:
    """The sample of an earlier night, without what was measured with other bundles on another scale.

    These are the scores and features, and the brightness if the bundles see another range of values or another part of
    the images. 8-bit images without a region have neither, so their brightness needs no bundle.
    """
    before = earlier.read("score", Scored) or Scored()

    @cache
    def see_alike(category: str, versions: frozenset[str]) -> bool:
        views: list[tuple[ValueRange | None, RegionMask | None]] = []
        for version in versions:
            with suppress(BundleError, StoreError):
                config = store.manifest(category, version).config
                views.append((config.value_range, config.region))
        is_same = bool(views) and all(view == views[0] for view in views)
        return is_same and (len(views) == len(versions) or views[0] == (None, None))

    for image in read_sample(earlier.sample):
        versions = frozenset(
            night.categories[image.category].bundle_version
            for night in (before, scored)
            if image.category in night.categories
        )
        if len(versions) != 1:
            brightness = image.brightness if see_alike(image.category, versions) else None
            image = replace(image, score=None, experts={}, brightness=brightness, features=())
        yield image


def _fitted(config: NightlyConfig, work: Location, category: str, version: str, view: View) -> list[SampledImage]:
    """The normal images of a fit, measured once per bundle, and the held-out scores.

    Raises:
        ArchiveError: The archive of the fit is missing, or has changed so that the category is gone.
        BundleError: The bundle is missing or corrupt.
    """
    store = BundleStore(config.bundles)
    manifest = store.manifest(category, version)
    lineage = manifest.lineage
    if "archive" not in lineage:
        raise ArchiveError("the bundle does not name its archive; fit it with `uniad-ray fit`")
    archive = Location.parse(lineage["archive"]["uri"])
    left_out = _left_out(archive, category, lineage.get("excluded", {}))
    name = f"{version}-{_digest(left_out)}" if left_out else version
    # An older version of this code measured the whole images.
    name += "" if view.inside is None else "-region"
    place = work / "reference" / dataset_segment(category) / f"{name}.parquet"
    known = read_sample(place) if place.exists() else []
    # Older versions of this code stored no scores of experts, and no features.
    if any(image.experts for image in known) and (view.features is None or any(image.features for image in known)):
        return known
    table = read_table(dataset_schema("calibration_score"), store.folder(category, version) / FILE_NAME)
    images = _normal_images(archive, category, config.drift.images, left_out, view)
    others = set(table.column("row_key").to_pylist()) - {image.row_key for image in images} - left_out
    images += [SampledImage(key, category, None, None, None) for key in sorted(others)]
    images = with_scores(images, table)
    write_sample(place, images)
    return images


def _left_out(archive: Location, category: str, of_fit: Collection[str]) -> frozenset[str]:
    """Row keys of the images that are no example of normal ones: excluded since the fit, or left out of it.

    Args:
        archive: The archive of the fit.
        category: The category.
        of_fit: Source URIs of the images that the fit left out.
    """
    excluded = {image_id for own, image_id in read_exclusions(archive) if own == category}
    if not excluded and not of_fit:
        return frozenset()
    rows = read_rows(
        archive, chunks(read_manifest(archive), categories=[category]), ("row_key", "image_id", "source_uri")
    )
    return frozenset(key for (key, image_id, uri), _, _ in rows if image_id in excluded or uri in of_fit)


def _digest(keys: Collection[str]) -> str:
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:8]


def _normal_images(
    archive: Location, category: str, most: int, left_out: Collection[str], view: View
) -> list[SampledImage]:
    manifest = read_manifest(archive)
    for splits in (FITTED_SPLITS, ("archive",)):
        own = chunks(manifest, categories=[category], splits=splits)
        found = sample_images(archive, own, most, normal_only=True, leave_out=left_out, view=view)
        if found:
            return found
    raise ArchiveError(f"{archive}: has no normal images of {category} any more")
