"""What an archive says of a source, from hand-written plans and shards."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.runs import ScoredImage, write_archive
from support.trees import mask_png, png

from uniad_ray.archive.ingest import IngestRecord, KnownFiles, plan_ingest
from uniad_ray.archive.ingest.known import Contents, known_spellings
from uniad_ray.archive.layouts import SourceImage
from uniad_ray.archive.manifest import RejectedFile, Shard, read_manifest
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError

IMAGE = SourceImage("k1", "/s/1", 10, "part", "test", "anomalous", "spot", None, ("/m/1",), "v1", ("w1",))


def archive_with(
    root: Path, images: list[SourceImage], *, rejected: tuple[str, ...] = (), shards: tuple[Shard, ...] = ()
) -> tuple[Location, IngestRecord]:
    """An archive with the plan of one finished ingest."""
    archive = Location.parse(root)
    record = IngestRecord(
        ingest_id="i",
        source="/s",
        shards=shards,
        rejected=tuple(RejectedFile(source_uri=uri, reason="no image") for uri in rejected),
    )
    (archive / "_ingest/i/plan.parquet").write_bytes(plan_ingest(images, limits=ShardLimits()).data)
    return archive, record


def is_unchanged(known: KnownFiles, image: SourceImage) -> bool:
    return known.is_unchanged(image, known.rows(image))


def test_versions_of_image_and_masks_identify_a_file(tmp_path: Path) -> None:
    archive, record = archive_with(tmp_path, [IMAGE])
    known = KnownFiles.read(archive, [record])
    assert known.rows(IMAGE) == (0,)
    assert is_unchanged(known, IMAGE)
    assert is_unchanged(known, replace(IMAGE, mask_uris=(), mask_versions=()))
    for other in (
        replace(IMAGE, version="v2"),
        replace(IMAGE, version=""),
        replace(IMAGE, uri="/other/1"),
        replace(IMAGE, mask_versions=("w2",)),
        replace(IMAGE, mask_uris=("/m/1", "/m/2"), mask_versions=("w1", "w2")),
    ):
        assert known.rows(other) == (0,)
        assert not is_unchanged(known, other)
    assert known.rows(replace(IMAGE, row_key="k2")) == ()


def test_labels_are_compared(tmp_path: Path) -> None:
    archive, record = archive_with(tmp_path, [IMAGE])
    known = KnownFiles.read(archive, [record])
    assert known.has_labels(IMAGE, known.rows(IMAGE))
    for other in ({"split": "train"}, {"label": None}, {"defect_kind": "dent"}, {"anomaly_type": "logical"}):
        assert not known.has_labels(replace(IMAGE, **other), known.rows(IMAGE))  # type: ignore[arg-type]


def test_former_keys_are_known(tmp_path: Path) -> None:
    archive, record = archive_with(tmp_path, [IMAGE])
    known = KnownFiles.read(archive, [record])
    assert is_unchanged(known, replace(IMAGE, row_key="normalised", former_key="k1"))


def test_every_version_that_was_read_is_known(tmp_path: Path) -> None:
    archive, first = archive_with(tmp_path, [IMAGE])
    later = replace(IMAGE, version="v2", mask_versions=("w2",))
    (archive / "_ingest/j/plan.parquet").write_bytes(plan_ingest([later], limits=ShardLimits()).data)
    known = KnownFiles.read(archive, [first, first.model_copy(update={"ingest_id": "j"})])
    assert known.rows(IMAGE) == (0, 1)
    assert is_unchanged(known, IMAGE)
    assert is_unchanged(known, later)
    assert not is_unchanged(known, replace(IMAGE, version="v3"))


@pytest.mark.parametrize("rejected", ["/s/1", "/m/1"])
def test_rejected_files_are_not_known(tmp_path: Path, rejected: str) -> None:
    archive, record = archive_with(tmp_path, [IMAGE], rejected=(rejected,))
    known = KnownFiles.read(archive, [record])
    assert known.rows(IMAGE) == (() if rejected == "/s/1" else (0,))
    assert not known.rows(IMAGE) or not is_unchanged(known, IMAGE)


def test_plans_without_versions_are_read(tmp_path: Path) -> None:
    archive, record = archive_with(tmp_path, [IMAGE])
    plan = tmp_path / "_ingest/i/plan.parquet"
    new = ["source_version", "mask_versions", "known_images", "known_masks"]
    old = pq.read_table(plan).drop_columns(new).replace_schema_metadata({"uniad_ray.schema_version": "1"})
    pq.write_table(old, plan)
    known = KnownFiles.read(archive, [record])
    assert known.rows(IMAGE) == (0,)
    assert not is_unchanged(known, IMAGE)
    assert not is_unchanged(known, replace(IMAGE, version=""))


def test_plans_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    archive, record = archive_with(tmp_path, [IMAGE])
    plan = tmp_path / "_ingest/i/plan.parquet"
    pq.write_table(pq.read_table(plan).replace_schema_metadata({"uniad_ray.schema_version": "4"}), plan)
    with pytest.raises(
        ArchiveError, match="newer version of uniad_ray; use that version, or ingest into a new archive"
    ):
        KnownFiles.read(archive, [record])


def test_ingest_without_a_plan_has_read_nothing(tmp_path: Path) -> None:
    record = IngestRecord(ingest_id="i", source="/s", shards=(), rejected=())
    assert KnownFiles.read(Location.parse(tmp_path), [record]).rows(IMAGE) == ()


def test_contents_are_the_digests_in_the_shards(tmp_path: Path) -> None:
    stored = [ScoredImage("1", png(1), 0.1, masks=(mask_png(),)), ScoredImage("2", png(2), 0.1)]
    archive = write_archive(tmp_path, stored)
    (shard,) = read_manifest(archive).shards
    uris = pq.read_table(tmp_path / shard.path).column("source_uri").to_pylist()
    images = [replace(IMAGE, row_key=f"k{index}", uri=uri) for index, uri in enumerate(uris)]
    _, record = archive_with(tmp_path, images, shards=(shard,))
    plan = tmp_path / "_ingest/i/plan.parquet"
    table = pq.read_table(plan)
    pq.write_table(table.set_column(table.column_names.index("shard"), "shard", pa.array([shard.path] * 2)), plan)
    known = KnownFiles.read(archive, [record])
    expected = {
        uri: Contents(
            (hashlib.sha256(image.image).hexdigest(),),
            tuple(hashlib.sha256(mask).hexdigest() for mask in image.masks),
        )
        for uri, image in zip(uris, stored, strict=True)
    }
    assert known.contents([known.rows(image) for image in images]) == [expected[image.uri] for image in images]
    both = known.contents([(0, 1)])[0]
    assert both.images == tuple(sorted(digest for content in expected.values() for digest in content.images))


def test_files_that_made_no_row_have_no_contents(tmp_path: Path) -> None:
    archive, record = archive_with(tmp_path, [IMAGE])
    known = KnownFiles.read(archive, [record])
    assert known.contents([known.rows(IMAGE)]) == [Contents()]


def test_categories_keep_their_old_spelling(tmp_path: Path) -> None:
    composed, decomposed = "\u00dc", "U\u0308"
    archive = write_archive(tmp_path, [ScoredImage("1", png(1), 0.1, category=decomposed)])
    record = IngestRecord(ingest_id="i", source="/s", shards=read_manifest(archive).shards, rejected=())
    assert known_spellings([record]) == {composed: decomposed}
    archive = write_archive(
        tmp_path / "both", [ScoredImage("1", png(1), 0.1, category=name) for name in (composed, decomposed)]
    )
    assert known_spellings([record.model_copy(update={"shards": read_manifest(archive).shards})]) == {}
