"""What interrupted ingests and compactions have left: shards that are in no manifest, but a glob of `images/` reads."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from uniad_ray.archive.ingest.known import PLAN_NAME
from uniad_ray.archive.ingest.moves import MOVED_NAME, is_compacted
from uniad_ray.archive.ingest.records import FOLDER, INGEST_NAME, finished_ingests, ingest_folder
from uniad_ray.archive.manifest import ArchiveManifest
from uniad_ray.archive.shards import open_parquet
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, ObjectNotFoundError

IMAGES = "images"


@dataclass(frozen=True)
class Leftovers:
    """The shards that the manifest does not list.

    Attributes:
        removed: Shards that were removed: those of compactions, and of ingests whose files later ones have all read.
        kept: Paths of the others, sorted.
        waiting: A file of each interrupted ingest whose files are not all in the archive.
    """

    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def warning(self) -> str | None:
        """What the user should know; None if nothing is left."""
        if not self.kept:
            return None
        count = f"{len(self.kept)} shard{'s' if len(self.kept) > 1 else ''}"
        if self.waiting:
            return (
                f"{count} of interrupted ingests not in the archive: repeat the ingest of {self.waiting[0]}"
                f"{f' and of {len(self.waiting) - 1} more' if len(self.waiting) > 1 else ''}; until then, readers of "
                f"the folder {IMAGES} see images that no run scores"
            )
        return f"{count} below {IMAGES} of no ingest, first {self.kept[0]}; delete them if nothing else uses them"


def remove_leftovers(archive: Location, manifest: ArchiveManifest) -> Leftovers:
    """Removes what interrupted ingests have left, if the archive has all their files by now. Call with the lease.

    It does so with shards that a compaction has replaced, and with those of a compaction that never took effect.

    An interrupted ingest resumes only while its source is unchanged. After that, its shards would stay for ever.

    Args:
        archive: Root of the archive.
        manifest: Its manifest, which was just built.
    """
    compacted = _remove_compacted(archive, manifest)
    listed = {shard.path for shard in manifest.shards}
    found = (f"{IMAGES}/{info.relative}" for info in (archive / IMAGES).list(suffix=".parquet"))
    left = {path for path in found if path not in listed}
    if not left:
        return Leftovers(compacted)
    plans: dict[str, set[str]] = {PLAN_NAME: set(), INGEST_NAME: set()}
    for info in (archive / FOLDER).list():
        folder, _, name = info.relative.rpartition("/")
        if name in plans:
            plans[name].add(folder)
    unfinished = {name: _read_plan(archive, name) for name in sorted(plans[PLAN_NAME] - plans[INGEST_NAME])}
    known: set[str] = set()
    for name in plans[INGEST_NAME] & plans[PLAN_NAME] if unfinished else ():
        known |= _read_plan(archive, name).keys
    removed: set[str] = set()
    waiting = []
    for name, plan in unfinished.items():
        own = left & plan.shards
        if own and plan.keys <= known:
            # First the shards: without the plan, nobody would know whose they are.
            for path in sorted(own):
                (archive / path).delete()
            ingest_folder(archive, name).delete_tree()
            removed |= own
        elif own:
            waiting.append(plan.first_uri)
    return Leftovers(tuple(sorted({*removed, *compacted})), tuple(sorted(left - removed)), tuple(waiting))


def _remove_compacted(archive: Location, manifest: ArchiveManifest) -> tuple[str, ...]:
    listed = {shard.path for shard in manifest.shards}
    found = [f"{IMAGES}/{info.relative}" for info in (archive / IMAGES).list(suffix=".parquet")]
    left = [path for path in found if path not in listed]
    replaced = {path for record in finished_ingests(archive) for path in record.replaces} if left else set()
    removed = [path for path in left if path in replaced or is_compacted(path)]
    for path in removed:
        (archive / path).delete()
    folders = {info.relative.partition("/")[0] for info in (archive / FOLDER).list(suffix=f"/{MOVED_NAME}")}
    for name in sorted(folders - set(manifest.ingests)):
        ingest_folder(archive, name).delete_tree()
    return tuple(removed)


@dataclass(frozen=True)
class _Plan:
    keys: set[str]
    shards: set[str]
    first_uri: str


def _read_plan(archive: Location, ingest_id: str) -> _Plan:
    try:
        with open_parquet(ingest_folder(archive, ingest_id) / PLAN_NAME) as file:
            table = file.read(columns=["row_key", "shard", "source_uri"])
    except (ArchiveError, ObjectNotFoundError):
        # The plan of an interrupted ingest may be damaged; its shards are then listed as nobody's.
        return _Plan(set(), set(), "")
    return _Plan(
        set(table.column("row_key").to_pylist()),
        set(pc.unique(table.column("shard")).to_pylist()),
        str(table.column("source_uri")[0]),
    )
