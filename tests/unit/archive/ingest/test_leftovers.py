"""Shards that killed ingests leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ingests import StoppedError, rows, without_ray
from support.trees import png, write

from uniad_ray.archive.ingest.leftovers import IMAGES


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five images, and an archive whose first ingest was killed after a shard of four."""
    for index in range(5):
        write(tmp_path / f"s/{index}.png", png(index))
    with pytest.raises(StoppedError):
        without_ray(monkeypatch, stop_after=1)(tmp_path / "s", tmp_path / "ar")
    assert len(shards(tmp_path)) == 1
    return tmp_path


def shards(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "ar" / IMAGES).rglob("*.parquet"))


def test_shards_of_a_killed_ingest_go_once_its_files_are_there(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (left,) = shards(killed)
    write(killed / "s/new.png", png(9))
    report = without_ray(monkeypatch)(killed / "s", killed / "ar")
    assert (report.taken, report.removed_shards, report.warnings) == (6, 1, ())
    assert left not in shards(killed)
    assert len(rows(killed / "ar")) == 6
    assert len(list((killed / "ar/_ingest").glob("*/plan.parquet"))) == 1
    again = without_ray(monkeypatch)(killed / "s", killed / "ar")
    assert (again.known, again.removed_shards, again.warnings) == (6, 0, ())


def test_resumed_ingest_keeps_its_shards(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = without_ray(monkeypatch)(killed / "s", killed / "ar")
    assert (report.taken, report.skipped_shards, report.removed_shards, report.warnings) == (5, 1, 0, ())


def test_killed_ingest_of_another_source_waits_and_is_named(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(killed / "t/0.png", png(20))
    report = without_ray(monkeypatch)(killed / "t", killed / "ar")
    assert report.removed_shards == 0
    assert report.warnings[0].startswith(
        f"1 shard of interrupted ingests not in the archive: repeat the ingest of {killed}/s/0.png; until then"
    )
    resumed = without_ray(monkeypatch)(killed / "s", killed / "ar")
    assert (resumed.taken, resumed.skipped_shards, resumed.warnings) == (5, 1, ())
    assert len(rows(killed / "ar")) == 6


def test_foreign_shards_are_named_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "s/0.png", png(0))
    write(tmp_path / "ar/images/x/copy.parquet", b"of somebody")
    report = without_ray(monkeypatch)(tmp_path / "s", tmp_path / "ar")
    assert report.warnings[0].startswith("1 shard below images of no ingest, first images/x/copy.parquet; ")
    assert "copy.parquet" in shards(tmp_path)
