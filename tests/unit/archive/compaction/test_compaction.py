"""Compactions, killed and not, and everything that names a shard that is gone: ingests, deletions, runs, captions."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.ingests import Ingest, outcome, rows
from support.kills import When, contents, killed_at
from support.runs import write_noise_run
from support.trees import png, write

from uniad_ray.archive.compaction import CompactionReport, compact
from uniad_ray.archive.deletion import DeletionChoice, delete_images
from uniad_ray.archive.ingest.moves import Moves, present_shards
from uniad_ray.archive.ingest.records import hold_archive
from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.schemas import dataset_schema
from uniad_ray.archive.shards import ShardLimits, encode_table, read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import cli
from uniad_ray.errors import ArchiveError, LeaseError
from uniad_ray.evaluation.run import evaluate
from uniad_ray.runs.reader import RunReader
from uniad_ray.sidecars.caption_files import carry_over_captions
from uniad_ray.sidecars.captions import caption_path

LIMITS = ShardLimits(rows=8, row_group_rows=4)
NIGHTS = 5


@pytest.fixture
def archive(tmp_path: Path, ingest: Ingest) -> Location:
    """Five nights of two images each, the second of split test, and so ten chunks of one image."""
    for night in range(NIGHTS):
        for split in ("train", "test"):
            write(tmp_path / f"source/part/{split}/good/{night}.png", png(2 * night + (split == "test")))
        ingest(tmp_path / "source", tmp_path / "archive")
    return Location.parse(tmp_path / "archive")


def by_key(archive: Location) -> dict[str, dict[str, object]]:
    found = rows(archive.uri)
    assert len({row["row_key"] for row in found}) == len(found)
    return {row["row_key"]: row for row in found}


def compacted(archive: Location) -> CompactionReport:
    return compact(archive.uri, limits=LIMITS)


def test_rows_stay_and_shards_grow(archive: Location) -> None:
    before, old = by_key(archive), read_manifest(archive)
    (found,) = compacted(archive).categories
    assert (found.shards_before, found.shards_after, found.chunks_before, found.chunks_after) == (5, 2, 10, 4)
    manifest = read_manifest(archive)
    assert by_key(archive) == before
    # Eight rows a shard, four a chunk, one split a chunk.
    expected = [("test", 4), ("test", 1), ("train", 3), ("train", 2)]
    assert [(chunk.split, chunk.rows) for chunk in chunks(manifest)] == expected
    assert manifest.categories == old.categories
    assert manifest.digest != old.digest
    # No other Parquet file is left: what reads the folder sees every row once.
    assert {f"images/{info.relative}" for info in (archive / "images").list()} == {
        shard.path for shard in manifest.shards
    }
    for shard in manifest.shards:
        assert len((archive / shard.path).read_bytes()) == shard.bytes
    assert compacted(archive).categories == ()
    assert read_manifest(archive) == manifest


@pytest.mark.parametrize(
    "when", ["before", pytest.param("during", marks=pytest.mark.slow), pytest.param("after", marks=pytest.mark.slow)]
)
def test_killed_at_every_step_loses_and_doubles_nothing(tmp_path: Path, archive: Location, when: When) -> None:
    keys = sorted(by_key(archive))
    start = contents(Path(archive.uri))

    def copy(target: Path) -> Location:
        for name, data in start.items():
            write(target / name, data)
        return Location.parse(target)

    whole = copy(tmp_path / "whole")
    with killed_at(None) as steps:
        compacted(whole)
    wanted, kills = contents(tmp_path / "whole"), 0
    for at, change in enumerate(steps.done):
        if when == "during" and not change.startswith("write "):
            continue
        out = copy(tmp_path / f"{when}-{at}")
        with killed_at(at, when):
            compacted(out)
        # Readers go on with what the manifest lists, old or new.
        assert sorted(by_key(out)) == keys, f"killed {when} {change}"
        compacted(out)
        assert contents(tmp_path / f"{when}-{at}") == wanted, f"killed {when} {change}"
        kills += 1
    # A lease, two shards, their moves, the record and the manifest are the least.
    assert kills >= 6


def test_interrupted_compaction_is_finished_by_an_ingest(tmp_path: Path, archive: Location, ingest: Ingest) -> None:
    before = by_key(archive)
    at = _step_after_commit(tmp_path, archive)
    with killed_at(at, "after"):
        compacted(archive)
    assert len(read_manifest(archive).shards) == NIGHTS
    report = ingest(tmp_path / "source", archive.uri)
    assert report.removed_shards == NIGHTS
    assert by_key(archive) == before
    assert len(read_manifest(archive).shards) == 2


def _step_after_commit(tmp_path: Path, archive: Location) -> int:
    copy = Location.parse(tmp_path / "probe")
    for name, data in contents(Path(archive.uri)).items():
        write(tmp_path / "probe" / name, data)
    with killed_at(None) as steps:
        compacted(copy)
    return next(at for at, change in enumerate(steps.done) if "/compact-" in change and change.endswith("ingest.json"))


def test_known_changed_and_deleted_files_stay_known(tmp_path: Path, archive: Location, ingest: Ingest) -> None:
    write(tmp_path / "source/part/train/good/0.png", png(100))
    ingest(tmp_path / "source", archive.uri)
    delete_images(archive.uri, DeletionChoice(names=("train/good/1.png",)), deleted_by="ann", reason="GDPR")
    compacted(archive)
    delete_images(archive.uri, DeletionChoice(names=("train/good/2.png",)), deleted_by="ann", reason="GDPR")
    before = by_key(archive)
    assert len(before) == 2 * NIGHTS + 1 - 2
    # Other versions, so that contents are compared; one path gets its first content back.
    write(tmp_path / "source/part/train/good/0.png", png(0))
    for path in (tmp_path / "source").rglob("*.png"):
        os.utime(path, (1, 1))
    assert outcome(ingest(tmp_path / "source", archive.uri)) == {
        "taken": 0,
        "known": 2 * NIGHTS,
        "changed": [],
        "rejected": {},
    }
    assert by_key(archive) == before


def test_deletion_by_a_former_shard_spares_other_rows(archive: Location) -> None:
    former = read_manifest(archive).shards[1].path
    own = set(read_table_keys(archive, former))
    compacted(archive)
    before = by_key(archive)
    choice = DeletionChoice(shards=frozenset([former]))
    assert delete_images(archive.uri, choice, deleted_by="nightly", reason="retention").images == len(own) == 2
    assert set(by_key(archive)) == set(before) - own
    left = Moves.read(archive).rows_left(archive, read_manifest(archive))
    assert former not in left
    assert sorted(left.values()) == [2] * (NIGHTS - 1)


def read_table_keys(archive: Location, shard: str) -> list[str]:
    own = [chunk for chunk in chunks(read_manifest(archive)) if chunk.shard == shard]
    return [key for chunk in own for key in read_chunk(archive, chunk, columns=["row_key"]).column(0).to_pylist()]


def test_moves_lead_through_several_compactions(tmp_path: Path, archive: Location, ingest: Ingest) -> None:
    former = [shard.path for shard in read_manifest(archive).shards]
    compacted(archive)
    write(tmp_path / "source/part/train/good/new.png", png(50))
    ingest(tmp_path / "source", archive.uri)
    (fresh,) = {shard.path for shard in read_manifest(archive).shards} - {
        path for path in (shard.path for shard in read_manifest(archive).shards) if "compact-" in path
    }
    compacted(archive)
    manifest, moves = read_manifest(archive), Moves.read(archive)
    assert sum(shard.rows for shard in manifest.shards) == 2 * NIGHTS + 1
    assert set(present_shards(archive, manifest, former)) <= {shard.path for shard in manifest.shards}
    found = {key for keys in moves.places(moves.keys_of(former)).values() for key in keys}
    assert len(found) == 2 * NIGHTS
    joined = next(shard.path for shard in manifest.shards if shard.path.rpartition("/")[2].startswith("compact-00002"))
    assert not moves.is_from(joined, set(former))
    assert moves.is_from(joined, {*former, fresh})


def test_runs_of_before_find_their_images(tmp_path: Path) -> None:
    run = write_noise_run(tmp_path, images=20, shard_rows=4)
    reader, archive = RunReader(run), Location.parse(tmp_path / "archive")
    keys = reader.scores(["row_key"]).column(0).to_pylist()
    before, metrics = reader.images("part", keys), evaluate(run, resamples=0).metrics
    assert len(before) == 20
    compact(archive.uri, limits=LIMITS)
    assert len(read_manifest(archive).shards) == 3
    after = evaluate(run, resamples=0)
    assert RunReader(run).images("part", keys) == before
    assert after.metrics == metrics
    delete_images(archive.uri, DeletionChoice(names=("part/007",)), deleted_by="ann", reason="GDPR")
    assert len(RunReader(run).images("part", keys)) == 19


def test_captions_move_with_their_images(tmp_path: Path, archive: Location) -> None:
    schema, sidecar = dataset_schema("caption_sidecar"), Location.parse(tmp_path / "captions")
    for chunk in list(chunks(read_manifest(archive)))[:-1]:
        keys = read_chunk(archive, chunk, columns=["row_key"]).column(0).to_pylist()
        values = {
            field.name: [None if field.nullable else [] if pa.types.is_list(field.type) else 0] * len(keys)
            for field in schema.arrow
        }
        values = {
            name: [""] * len(keys) if schema.arrow.field(name).type == pa.string() and column[0] == 0 else column
            for name, column in values.items()
        }
        table = schema.table(values | {"row_key": keys, "text": [f"caption of {key}" for key in keys]})
        (sidecar / caption_path(chunk.name)).write_bytes(encode_table(schema, table))
    compacted(archive)
    work = list(chunks(read_manifest(archive)))
    written = carry_over_captions(sidecar, archive, work)
    # One image has no caption; its chunk is left to be captioned, and former files with others of it stay.
    assert len(written) == len(work) - 1
    for chunk in work:
        if chunk.name in written:
            keys = read_chunk(archive, chunk, columns=["row_key"]).column(0).to_pylist()
            with (sidecar / caption_path(chunk.name)).open_seekable() as file:
                table = pq.read_table(file)
            assert table.column("row_key").to_pylist() == keys
            assert table.column("text").to_pylist() == [f"caption of {key}" for key in keys]
    assert carry_over_captions(sidecar, archive, [chunk for chunk in work if chunk.name not in written]) == set()


def test_refusals_change_nothing(tmp_path: Path, archive: Location) -> None:
    before = contents(Path(archive.uri))
    with hold_archive(archive), pytest.raises(LeaseError, match="is being written by"):
        compacted(archive)
    with pytest.raises(ArchiveError, match="no category other"):
        compact(archive.uri, categories=["other"])
    with pytest.raises(ArchiveError, match=r"no manifest\.json found"):
        compact(str(tmp_path / "nothing"))
    (archive / "_ingest").delete_tree()
    with pytest.raises(ArchiveError, match="no ingest lists this shard"):
        compacted(archive)
    assert {name: data for name, data in contents(Path(archive.uri)).items() if "_ingest" not in name} == {
        name: data for name, data in before.items() if "_ingest" not in name
    }


def test_command_says_what_it_would_do_and_does_it(archive: Location) -> None:
    before = contents(Path(archive.uri))
    planned = CliRunner().invoke(cli, ["archive", "compact", archive.uri, "--dry-run"])
    figures = "the small shards, 10 images: 5 shards with 10 chunks before, 1 with 2 after"
    assert f"part: would join {figures}" in planned.output
    assert contents(Path(archive.uri)) == before
    done = CliRunner().invoke(cli, ["archive", "compact", archive.uri])
    assert f"part: joined {figures}" in done.output
    again = CliRunner().invoke(cli, ["archive", "compact", archive.uri])
    assert "nothing to do" in again.output
    assert CliRunner().invoke(cli, ["archive", "compact", archive.uri, "--yes"]).exit_code == 2
