"""Deletions, killed and not, of archives that a real ingest without Ray has made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.ingests import Ingest, all_bytes, rows
from support.kills import KilledError
from support.trees import png, write

from uniad_ray.archive.deletion import DeletionChoice, delete_images, list_deletions, parse_time
from uniad_ray.archive.deletion import job as deletion_job
from uniad_ray.archive.ingest.records import hold_archive
from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores import lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import cli
from uniad_ray.cli.verbs.data import archive as verb_module
from uniad_ray.errors import ArchiveError, LeaseError, SidecarError, UserError

COUNT = 10


@pytest.fixture
def archive(tmp_path: Path, ingest: Ingest) -> Location:
    """Ten images of three shards with row groups of two; the last is a copy of the first."""
    lines = []
    for number in range(COUNT):
        write(tmp_path / f"source/{number:03d}.png", png(number % (COUNT - 1)))
        time = f"2026-11-{number + 1:02d}T06:00:00+00:00" if number != 4 else ""
        lines.append(f"{number:03d}.png,part,S{number // 2},{time}")
    write(tmp_path / "list.csv", "\n".join(["path,category,serial,time", *lines]).encode())
    ingest(tmp_path / "source", tmp_path / "archive", manifest=str(tmp_path / "list.csv"))
    return Location.parse(tmp_path / "archive")


def names(archive: Location) -> list[str]:
    return sorted(row["source_uri"].rpartition("/")[2] for row in rows(archive.uri))


def delete(archive: Location, *named: str, **conditions: Any) -> list[str]:
    report = delete_images(archive.uri, DeletionChoice(names=named, **conditions), deleted_by="ann", reason="GDPR")
    return sorted(uri.rpartition("/")[2] for found in report.categories for uri in found.source_uris)


def bytes_hold(archive: Location, pixels: bytes) -> bool:
    return any(pixels in data for data in all_bytes(archive.uri).values())


def test_pixels_are_gone_and_the_rest_is_unchanged(archive: Location) -> None:
    before = {row["source_uri"]: row for row in rows(archive.uri)}
    pixels = next(row["image"] for uri, row in before.items() if uri.endswith("/003.png"))
    assert bytes_hold(archive, pixels)
    assert delete(archive, "003.png") == ["003.png"]
    assert not bytes_hold(archive, pixels)
    after = {row["source_uri"]: row for row in rows(archive.uri)}
    assert after == {uri: row for uri, row in before.items() if not uri.endswith("/003.png")}
    manifest = read_manifest(archive)
    assert manifest.images == manifest.categories["part"].images == COUNT - 1
    assert manifest.categories["part"].labels == {"archive/unknown": COUNT - 1}
    for shard in manifest.shards:
        assert len((archive / shard.path).read_bytes()) == shard.bytes


def test_record_says_who_what_and_why_without_pixels(archive: Location) -> None:
    image = next(row for row in rows(archive.uri) if row["source_uri"].endswith("/003.png"))
    delete(archive, "003.png")
    (record,) = list_deletions(archive.uri).deletions
    assert (record.images, record.deleted_by, record.reason) == (1, "ann", "GDPR")
    (stored,) = [info.location for info in (archive / "deletions").list(suffix=".parquet")]
    assert image["image_id"].encode() in stored.read_bytes()
    assert image["image"][:64] not in stored.read_bytes()


def test_other_row_groups_keep_their_names(archive: Location) -> None:
    before = {chunk.name: read_chunk(archive, chunk) for chunk in chunks(read_manifest(archive))}
    delete(archive, "000.png", "001.png")
    after = {chunk.name: read_chunk(archive, chunk) for chunk in chunks(read_manifest(archive))}
    # The first row group of the first shard is empty, and the copy of the first image was in the last shard.
    assert [name for name in before if name not in after] == sorted(before)[:1]
    assert all(after[name].equals(before[name]) for name in sorted(after)[:-1])
    assert [table.num_rows for table in after.values()] == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"metadata": (("serial", "S1"),)}, [2, 3]),
        ({"before": parse_time("2026-11-03", "--before")}, [0, 1]),
        ({"after": parse_time("2026-11-09T08:00+02:00", "--after")}, [8, 9]),
        ({"after": parse_time("2026-11-03", "-"), "before": parse_time("2026-11-07", "-")}, [2, 3, 5]),
        ({"metadata": (("serial", "S1"),), "before": parse_time("2026-11-03T07:00", "-")}, [2]),
        ({"metadata": (("serial", "S9"),)}, []),
        ({"categories": ("part",)}, list(range(COUNT))),
    ],
)
def test_conditions(archive: Location, choice: dict[str, Any], expected: list[int]) -> None:
    planned = delete_images(archive.uri, DeletionChoice(**choice), deleted_by="", reason="", dry_run=True)
    assert planned.images == len(expected)
    assert planned.without_time == (1 if ("before" in choice and "metadata" not in choice) or "after" in choice else 0)
    assert len(names(archive)) == COUNT
    assert delete(archive, **choice) == [f"{number:03d}.png" for number in expected]
    left = [f"{number:03d}.png" for number in range(COUNT) if number not in expected]
    assert names(archive) == left


def test_copy_of_the_same_bytes_goes_with_a_named_image(archive: Location) -> None:
    assert delete(archive, "000.png") == ["000.png", "009.png"]


def test_deleted_files_are_not_ingested_again_unless_their_content_changes(
    archive: Location, tmp_path: Path, ingest: Ingest
) -> None:
    delete(archive, "003.png", "004.png", "005.png", "006.png", "007.png")
    # A touched file is read again, and compared by its content.
    for number in (2, 3, 5):
        write(tmp_path / f"source/{number:03d}.png", png(number))
    report = ingest(tmp_path / "source", archive.uri, manifest=str(tmp_path / "list.csv"))
    assert (report.new_images, report.known) == (0, COUNT)
    write(tmp_path / "source/003.png", png(77))
    assert ingest(tmp_path / "source", archive.uri, manifest=str(tmp_path / "list.csv")).new_images == 1
    assert names(archive) == ["000.png", "001.png", "002.png", "003.png", "008.png", "009.png"]


def test_deletion_killed_after_every_file_ends_the_same(
    archive: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ingest: Ingest
) -> None:
    named = ("003.png", "004.png", "005.png", "006.png", "007.png", "008.png")
    kills = 0
    for last in range(30):
        with monkeypatch.context() as patch:
            die_after(patch, last)
            try:
                # Once it is recorded, it goes on by itself.
                delete(archive, *(() if list_deletions(archive.uri).deletions else named))
            except KilledError:
                kills += 1
                continue
        break
    assert kills >= 5
    assert list_deletions(archive.uri).resumed == ()
    assert names(archive) == ["000.png", "001.png", "002.png", "009.png"]
    ingest(tmp_path / "source", tmp_path / "other", manifest=str(tmp_path / "list.csv"))
    delete(Location.parse(tmp_path / "other"), *named)
    assert {path: data for path, data in all_bytes(archive.uri).items() if not path.startswith("deletions/")} == {
        path: data for path, data in all_bytes(tmp_path / "other").items() if not path.startswith("deletions/")
    }


def die_after(patch: pytest.MonkeyPatch, operations: int) -> None:
    """Kills this process, so to speak, after some files that were written or deleted."""
    write_bytes, remove, left = Location.write_bytes, Location.delete, operations
    # The lease that is left behind is that of a dead process.
    patch.setattr(lease, "_start_of", lambda _: f"dead {operations}")

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    def write_then_die(self: Location, data: bytes, *, if_absent: bool = False) -> None:
        write_bytes(self, data, if_absent=if_absent)
        count()

    def delete_then_die(self: Location) -> None:
        remove(self)
        count()

    patch.setattr(Location, "write_bytes", write_then_die)
    patch.setattr(Location, "delete", delete_then_die)


def test_interrupted_deletion_is_said_and_finished_by_the_next_ingest(
    archive: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ingest: Ingest
) -> None:
    with monkeypatch.context() as patch:
        die_after(patch, 2)
        with pytest.raises(KilledError):
            delete(archive, "003.png")
    (chunk,) = [chunk for chunk in chunks(read_manifest(archive)) if chunk.name.endswith("00000-00001")]
    with pytest.raises(ArchiveError, match=r"uniad-ray archive delete .* finishes it"):
        read_chunk(archive, chunk)
    assert len(list_deletions(archive.uri).resumed) == 1
    ingest(tmp_path / "source", archive.uri, manifest=str(tmp_path / "list.csv"))
    assert list_deletions(archive.uri).resumed == ()
    assert len(names(archive)) == COUNT - 1


def test_second_deletion_is_refused_while_shards_are_rewritten(
    archive: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = deletion_job.rewrite_shard
    refused: list[str] = []

    def slow(*arguments: Any) -> Any:
        found = rewrite(*arguments)
        with pytest.raises(LeaseError) as caught:
            # It would write the same shard, and this one would then bring its image back.
            delete(archive, "002.png")
        refused.append(str(caught.value))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(deletion_job, "rewrite_shard", slow)
        delete(archive, "003.png")
    assert [text.partition(" is being")[0] for text in refused] == [f"the archive {archive}"]
    assert len(list_deletions(archive.uri).deletions) == 1
    assert delete(archive, "002.png") == ["002.png"]
    assert len(names(archive)) == COUNT - 2


def test_nothing_is_deleted_beside_an_ingest(archive: Location) -> None:
    with hold_archive(archive):
        with pytest.raises(LeaseError, match="is being written by"):
            delete(archive, "003.png")
        dry = delete_images(archive.uri, DeletionChoice(("003.png",)), deleted_by="", reason="", dry_run=True)
        assert dry.images == 1
    assert len(names(archive)) == COUNT
    assert list_deletions(archive.uri).deletions == ()


def test_mistyped_archive_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError):
        delete_images(str(tmp_path / "achive"), DeletionChoice(), deleted_by="a", reason="b")
    assert not (tmp_path / "achive").exists()


def test_archive_without_images_is_still_one(archive: Location) -> None:
    delete(archive, categories=("part",))
    manifest = read_manifest(archive)
    assert (manifest.images, manifest.shards, manifest.categories) == (0, (), {})
    assert not list((archive / "images").list())


def test_wrong_requests_delete_nothing(archive: Location) -> None:
    with pytest.raises(ArchiveError, match=r"no image 99\.png"):
        delete(archive, "001.png", "99.png")
    with pytest.raises(ArchiveError, match="no category lid"):
        delete(archive, categories=("lid",))
    with pytest.raises(ArchiveError, match="say with --reason"):
        delete_images(archive.uri, DeletionChoice(("001.png",)), deleted_by="a", reason=" ")
    with pytest.raises(ArchiveError, match="--before soon: write a date"):
        parse_time("soon", "--before")
    assert len(names(archive)) == COUNT


def test_command_asks_on_a_terminal(archive: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb_module, "_is_interactive", lambda: True)
    command = ["archive", "delete", archive.uri, "003.png", "--reason", "wish"]
    no = CliRunner().invoke(cli, command, input="n\n")
    assert (no.exit_code, len(names(archive))) == (1, COUNT)
    assert "Delete 1 images for good?" in no.output
    yes = CliRunner().invoke(cli, command, input="y\n")
    assert (yes.exit_code, len(names(archive))) == (0, COUNT - 1)


def test_user_without_a_name_is_a_number_in_the_record(archive: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(lease.getpass, "getuser", nameless)
    command = ["archive", "delete", archive.uri, "003.png", "--reason", "wish", "--yes"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert list_deletions(archive.uri).deletions[0].deleted_by == str(os.getuid())


def test_command_shows_and_deletes(archive: Location) -> None:
    def run(*arguments: str, code: int = 0, typed: str | None = None) -> str:
        result = CliRunner().invoke(cli, ["archive", *arguments], input=typed)
        if isinstance(result.exception, UserError):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    part = ("delete", archive.uri, "--where", "serial=S1")
    assert "say with --reason" in run(*part, code=2)
    shown = run(*part, "--dry-run")
    assert shown.count("would delete file://") == 2 or shown.count("would delete /") == 2
    refused = run(*part, "--reason", "wish", code=2)
    assert "would delete 2 images in 1 shards" in refused
    assert "repeat the command with --yes" in refused
    assert len(names(archive)) == COUNT
    with pytest.raises(ArchiveError, match="write NAME=VALUE"):
        run("delete", archive.uri, "--where", "serial", "--dry-run")
    with pytest.raises(ArchiveError, match=r"no image has the metadata sreial; there is .*serial"):
        run("delete", archive.uri, "--where", "sreial=S1", "--dry-run")
    document = json.loads(run(*part, "--reason", "wish", "--by", "bo", "--yes", "--json"))
    assert (document["images"], document["left"]) == (2, COUNT - 2)
    assert "bo" in run("deletions", archive.uri)
    assert "takes only images" in run("exclude", archive.uri, "001.png", "--yes", code=2)
    assert "0 images in 0 shards" in run("delete", archive.uri)
    with pytest.raises(SidecarError):
        run("delete", archive.uri, "001.png", "--reason", "wish", "--yes", "--captions", f"{archive.uri}/mistyped")
    assert len(names(archive)) == COUNT - 2
