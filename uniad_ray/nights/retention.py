"""Deletes what older nights left: images, runs, reports and samples. Records of nights and the history stay."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from uniad_ray.archive.deletion import DeletionChoice, delete_images
from uniad_ray.archive.ingest.moves import Moves, is_compacted
from uniad_ray.archive.manifest import MANIFEST_NAME, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.nights.config import NightlyConfig
from uniad_ray.nights.folder import END, Night, Nights
from uniad_ray.nights.model import Expired, ExpiredKind, Ingested, Scored
from uniad_ray.sidecars.caption_files import delete_captions
from uniad_ray.sidecars.captions import MANIFEST_NAME as SIDECAR_MANIFEST

_logger = logging.getLogger(__name__)


class Deleted(StrictModel):
    """Record of something that was deleted, in the folder of its night.

    Attributes:
        place: What was deleted.
        deleted_at: UTC, ISO 8601.
        reason: Rule of the configuration.
    """

    place: str
    deleted_at: str
    reason: str


def record_name(kind: ExpiredKind) -> str:
    """Name of the record of a deletion in the folder of its night."""
    return f"{kind}-deleted"


RUN_DELETED: Final = record_name("run")
REPORT_DELETED: Final = record_name("report")


def expired(config: NightlyConfig, nights: Nights, now: datetime) -> list[Expired]:
    """Lists what is older than the configuration keeps it, oldest night first.

    Args:
        config: The configuration.
        nights: The nights; unfinished ones keep everything.
        now: Time that ages are counted to.
    """
    found: list[Expired] = []
    shards = _shards(config)
    versions: set[str] = set()
    rules = config.retention
    last = len(nights.all) - (len(nights.all) if config.keep_runs is None else config.keep_runs)
    for index, night in enumerate(nights.all):
        age = now - datetime.fromisoformat(nights.begun(night).started_at)
        if not nights.has(night, END):
            versions |= _versions(night)
            continue
        found += _expired_run(config, night, age, index < last)
        if _is_older(age, rules.samples_days):
            if night.sample.exists():
                found.append(_entry(night, "sample", night.sample, f"retention.samples_days: {rules.samples_days}"))
        elif rules.samples_days is not None:
            versions |= _versions(night)
        images = sum(shards.get(path, 0) for path in _expired_shards(config, nights, night, now))
        if images:
            found.append(_expired_images(config, night, images))
    if rules.samples_days is not None:
        found += _unused_references(nights.work, versions, f"retention.samples_days: {rules.samples_days}")
    return found


def _expired_shards(config: NightlyConfig, nights: Nights, night: Night, now: datetime) -> tuple[str, ...]:
    """Shards of a finished night whose images are too old, unless they and their captions are known to be gone."""
    age = now - datetime.fromisoformat(nights.begun(night).started_at)
    is_due = nights.has(night, END) and _is_older(age, config.retention.images_days)
    ingested = night.read("ingest", Ingested) if is_due and not nights.has(night, record_name("images")) else None
    return ingested.shards if ingested else ()


def _expired_images(config: NightlyConfig, night: Night, images: int) -> Expired:
    reason = f"retention.images_days: {config.retention.images_days}"
    return _entry(night, "images", Location.parse(config.archive), reason, images)


def _expired_run(config: NightlyConfig, night: Night, age: timedelta, is_beyond: bool) -> Iterator[Expired]:
    rules = config.retention
    is_old = _is_older(age, rules.runs_days)
    if is_beyond or is_old:
        if night.run.has_children():
            reason = f"retention.runs_days: {rules.runs_days}" if is_old else f"keep_runs: {config.keep_runs}"
            yield _entry(night, "run", night.run, reason)
    elif _is_older(age, rules.reports_days) and (night.run / "report").has_children():
        yield _entry(night, "report", night.run / "report", f"retention.reports_days: {rules.reports_days}")


def delete_expired(config: NightlyConfig, nights: Nights, now: datetime) -> list[Expired]:
    """Deletes what `expired` lists. What is deleted of a night gets a record.

    Images are deleted as by `archive delete`, which has a record of its own, and are not ingested again.

    Raises:
        ArchiveError: The archive is corrupt.
        LeaseError: Another process ingests into the archive, or deletes from it.
        SidecarError: A sidecar of `retention.captions` is missing, or of another archive.
        StoreError: A store failed; the next call goes on.
    """
    due = expired(config, nights, now)
    cleared = [night for night in nights.all if _expired_shards(config, nights, night, now)]
    for entry in due:
        if entry.kind == "images":
            _delete_images(config, Night(nights.work, str(entry.night)), entry)
            continue
        if entry.night is not None:
            _record(Night(nights.work, entry.night), entry)
        place = Location.parse(entry.place)
        if entry.kind in ("sample", "reference"):
            place.delete()
        else:
            place.delete_tree()
        _logger.info("night %s: its %s is deleted (%s)", entry.night, entry.kind, entry.reason)
    for sidecar in _sidecars(config) if cleared else ():
        delete_captions(sidecar, Location.parse(config.archive))
    for night in cleared:
        # Here the record comes last: the archive resumes a deletion of its images, but nobody one of the captions.
        _record(night, _expired_images(config, night, 0))
    return due


def _sidecars(config: NightlyConfig) -> list[Location]:
    """Caption sidecars that deleted images leave; that of the nights may not be there yet."""
    named = [Location.parse(sidecar) for sidecar in config.retention.captions]
    own = None if config.captions is None else Location.parse(config.captions.sidecar)
    if own is not None and own not in named and (own / SIDECAR_MANIFEST).exists():
        named.append(own)
    return named


def _delete_images(config: NightlyConfig, night: Night, entry: Expired) -> None:
    ingested = night.read("ingest", Ingested)
    choice = DeletionChoice(shards=frozenset(ingested.shards if ingested else ()))
    delete_images(config.archive, choice, deleted_by="nightly", reason=f"{entry.reason}, night {night.name}")


def _record(night: Night, entry: Expired) -> None:
    name = record_name(entry.kind)
    if night.read(name, Deleted) is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        night.write(name, Deleted(place=entry.place, deleted_at=now, reason=entry.reason))


def _entry(night: Night, kind: ExpiredKind, place: Location, reason: str, images: int | None = None) -> Expired:
    return Expired(night=night.name, kind=kind, place=place.uri, images=images, reason=reason)


def _is_older(age: timedelta, days: int | None) -> bool:
    return days is not None and age > timedelta(days=days)


def _shards(config: NightlyConfig) -> dict[str, int]:
    """Images by shard of the archive, present or from before a compaction; empty if no rule needs them."""
    archive = Location.parse(config.archive)
    if config.retention.images_days is None or not (archive / MANIFEST_NAME).exists():
        return {}
    manifest = read_manifest(archive)
    found = {shard.path: shard.rows for shard in manifest.shards}
    if any(map(is_compacted, found)):
        found |= Moves.read(archive).rows_left(archive, manifest)
    return found


def _versions(night: Night) -> set[str]:
    """Bundle versions that a night was scored with."""
    scored = night.read("score", Scored)
    return {counts.bundle_version for counts in scored.categories.values()} if scored else set()


def _unused_references(work: Location, versions: set[str], reason: str) -> Iterator[Expired]:
    """Measured images of fits that no night with a sample was scored with."""
    for info in (work / "reference").list(suffix=".parquet"):
        name = info.relative.rpartition("/")[2].removesuffix(".parquet")
        if not any(name.startswith(version) for version in versions):
            yield Expired(night=None, kind="reference", place=info.location.uri, images=None, reason=reason)
