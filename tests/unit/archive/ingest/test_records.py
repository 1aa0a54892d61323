from __future__ import annotations

from pathlib import Path

import pytest

from uniad_ray.archive.ingest import IngestRecord, SourceRecord, finished_ingests, rebuild_manifest
from uniad_ray.archive.ingest.records import finish_ingest, forget_shards, ingest_folder, write_source_record
from uniad_ray.archive.manifest import RejectedFile, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError


def rejected(*names: str) -> tuple[RejectedFile, ...]:
    return tuple(RejectedFile(source_uri=name, reason="no image") for name in names)


def finish(archive: Location, name: str, source: str, *names: str) -> None:
    record = IngestRecord(
        ingest_id=name, source=source, shards=(), rejected=rejected(*names), defects={"a": [{"x": 1}]}
    )
    finish_ingest(ingest_folder(archive, name), record)


def state(source: str, *names: str, category: str | None = None, further: int = 0) -> SourceRecord:
    return SourceRecord(
        source=source,
        category=category,
        rejected_count=len(names) + further,
        rejected=rejected(*names),
        defects={"a": [{"x": 2}]},
    )


def test_manifest_lists_what_the_last_ingest_of_each_source_rejected(tmp_path: Path) -> None:
    archive = Location.parse(tmp_path)
    finish(archive, "1", "/s", "/s/mended.png", "/s/broken.png")
    finish(archive, "2", "/old", "/old/broken.png")
    write_source_record(archive, state("/s", "/s/mended.png"))
    write_source_record(archive, state("/s", "/s/broken.png", further=5))
    write_source_record(archive, state("/s", "/s/a/broken.png", category="a"))
    manifest = rebuild_manifest(archive)
    assert [entry.source_uri for entry in manifest.rejected] == ["/old/broken.png", "/s/a/broken.png", "/s/broken.png"]
    assert manifest.rejected_count == 8
    assert manifest.ingests == ("1", "2")
    assert read_manifest(archive) == manifest


def test_unfinished_ingests_are_not_in_the_manifest(tmp_path: Path) -> None:
    archive = Location.parse(tmp_path)
    finish(archive, "1", "/s")
    finish(archive, "2", "/s")
    folder = ingest_folder(archive, "1")
    (folder / "shards/00000.json").write_bytes(b"{}")
    forget_shards(folder)
    assert not (folder / "shards").has_children()
    assert rebuild_manifest(archive).ingests == ("2",)


@pytest.mark.parametrize("name", ["_ingest/1/ingest.json", "_ingest/sources/1.json"])
def test_records_of_a_newer_version_are_refused(tmp_path: Path, name: str) -> None:
    archive = Location.parse(tmp_path)
    finish(archive, "0", "/s")
    (archive / name).write_json({"ingest_id": "1", "lease": 7})
    with pytest.raises(ArchiveError, match=f"{name}: corrupt record .* newer version of uniad_ray; use that version"):
        rebuild_manifest(archive)


def test_records_without_the_later_fields_are_read(tmp_path: Path) -> None:
    archive = Location.parse(tmp_path)
    old = {"ingest_id": "1", "source": "/s", "shards": [], "rejected": [{"source_uri": "/s/a", "reason": "x"}]}
    (archive / "_ingest/1/ingest.json").write_json(old)
    assert [record.rejected[0].source_uri for record in finished_ingests(archive)] == ["/s/a"]
    assert rebuild_manifest(archive).rejected_count == 1
