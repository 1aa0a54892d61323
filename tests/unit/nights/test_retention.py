"""Nights that delete what is too old, killed and not, with the tasks of Ray in this process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.kills import KilledError
from support.nights import CATEGORY, Factory
from support.trees import png

from uniad_ray.archive.compaction import compact
from uniad_ray.archive.deletion import DeletionChoice, delete_images, list_deletions
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores import lease
from uniad_ray.archive.stores.location import Location
from uniad_ray.nights import retention as retention_module
from uniad_ray.nights import steps
from uniad_ray.nights.config import NightlyConfig
from uniad_ray.nights.folder import Nights
from uniad_ray.nights.model import Expired
from uniad_ray.nights.retention import expired
from uniad_ray.runs.reviews import Mark, write_marks

pytestmark = pytest.mark.usefixtures("jobs_here")


def nights_of(prepared: Path, root: Path, **rules: Any) -> Factory:
    """A factory with nights of three images each, 30, 20 and 10 days ago."""
    factory = Factory.copy(prepared, root, **rules)
    for number, days in enumerate((30, 20, 10)):
        factory.arrive(3)
        factory.night(f"n{number}")
        begin = factory.work / f"nights/n{number}/begin.json"
        document = json.loads(begin.read_text("utf-8"))
        document["started_at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        begin.write_text(json.dumps(document), "utf-8")
    return factory


def retention(factory: Factory, **rules: Any) -> None:
    factory.options["retention"] = rules


def due(factory: Factory) -> list[tuple[str | None, str, int | None]]:
    config = NightlyConfig.model_validate(factory.document())
    found = expired(config, Nights(Location.parse(factory.work)), datetime.now(UTC))
    return [(entry.night, entry.kind, entry.images) for entry in found]


def held(factory: Factory) -> int:
    return read_manifest(Location.parse(factory.root / "archive")).images


def test_dry_run_lists_and_the_night_deletes_the_same(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    assert due(factory) == []
    retention(factory, images_days=15, runs_days=25, reports_days=15, samples_days=5)
    expected = [
        ("n0", "run", None),
        ("n0", "sample", None),
        ("n0", "images", 3),
        ("n1", "report", None),
        ("n1", "sample", None),
        ("n1", "images", 3),
        ("n2", "sample", None),
    ]
    factory.arrive(1)
    listed = factory.night("n3", dry_run=True).expired
    assert [(entry.night, entry.kind, entry.images) for entry in listed] == expected
    assert listed[2].reason == "retention.images_days: 15"
    assert held(factory) == 10
    deleted = factory.night("n3").expired
    assert [entry.model_dump(exclude={"place"}) for entry in deleted] == [
        entry.model_dump(exclude={"place"}) for entry in listed
    ]
    assert held(factory) == 4
    assert sorted(path.name for path in (factory.work / "runs").iterdir()) == ["n1", "n2", "n3"]
    assert not (factory.work / "runs/n1/report").exists()
    assert (factory.work / "runs/n2/report").exists()
    for night, kinds in (("n0", ("run", "sample", "images")), ("n1", ("report", "sample", "images"))):
        for kind in kinds:
            assert factory.record(night, f"{kind}-deleted")["reason"].startswith(f"retention.{kind}")
    assert len(factory.rows("n1")) == 3
    assert due(factory) == []
    records = list_deletions(str(factory.root / "archive")).deletions
    assert [(record.images, record.deleted_by) for record in records] == [(3, "nightly"), (3, "nightly")]
    assert records[0].reason == "retention.images_days: 15, night n0"


def test_deleted_images_are_not_scored_again_and_new_ones_are(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    retention(factory, images_days=15)
    factory.night("n3")
    for path in sorted((factory.root / "camera").iterdir())[:6]:
        path.write_bytes(path.read_bytes())
    factory.arrive(2)
    assert factory.night("n4").nights[0].images == 2
    assert held(factory) == 5


def test_retention_killed_after_every_file_ends_the_same(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    retention(factory, images_days=15, runs_days=25, reports_days=15, samples_days=25)
    seen: set[str] = set()
    kills = 0
    while True:
        with pytest.MonkeyPatch.context() as patch:
            write_bytes, remove = Location.write_bytes, Location.delete

            def die_once(uri: str, seen: set[str] = seen) -> None:
                # Each lease that a dead process leaves makes the next one another file.
                if uri not in seen and "/lease/" not in uri:
                    seen.add(uri)
                    raise KilledError

            def write_then_die(
                self: Location, data: bytes, *, if_absent: bool = False, write: Any = write_bytes
            ) -> None:
                write(self, data, if_absent=if_absent)
                die_once(self.uri)

            def delete_then_die(self: Location, remove: Any = remove) -> None:
                remove(self)
                die_once(f"- {self.uri}")

            # The lease that is left behind is that of a dead process.
            patch.setattr(lease, "_start_of", lambda _, kill=kills: f"dead {kill}")
            patch.setattr(Location, "write_bytes", write_then_die)
            patch.setattr(Location, "delete", delete_then_die)
            try:
                factory.night("n3")
            except KilledError:
                kills += 1
            else:
                break
    assert kills > 12
    assert held(factory) == 3
    assert due(factory) == []
    assert (factory.work / "nights/n3/end.json").exists()
    assert len(list_deletions(str(factory.root / "archive")).deletions) == 2
    assert list_deletions(str(factory.root / "archive")).resumed == ()


def test_captions_are_deleted_even_if_the_night_is_killed_before(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = nights_of(prepared, tmp_path)
    retention(factory, images_days=15, captions=("captions",))
    asked: list[str] = []

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(retention_module, "delete_captions", die)
        with pytest.raises(KilledError):
            factory.night("n3")
    assert held(factory) == 3
    monkeypatch.setattr(retention_module, "delete_captions", lambda sidecar, _: asked.append(sidecar.uri))
    factory.night("n3")
    assert len(asked) == 1
    factory.night("n4")
    assert len(asked) == 1
    assert factory.record("n0", "images-deleted")["reason"] == "retention.images_days: 15"


def test_marks_do_not_write_a_deleted_report_again(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    retention(factory, reports_days=15)
    factory.night("n3")
    row = factory.rows("n1")[0]
    mark = Mark(row["row_key"], CATEGORY, "confirmed", row["score"], row["threshold"], "r", "2026-01-01T00:00:00")
    write_marks(Location.parse(factory.work / "runs/n1"), [mark])
    factory.night("n4")
    assert not (factory.work / "runs/n1/report").exists()


def test_measured_images_of_unused_bundles_go_with_the_samples(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    unused = factory.work / f"reference/{CATEGORY}/20200101-000000-00000000.parquet"
    unused.write_bytes(b"old")
    assert due(factory) == []
    retention(factory, samples_days=15)
    entries = due(factory)
    assert entries == [("n0", "sample", None), ("n1", "sample", None), (None, "reference", None)]
    (kept,) = [path for path in unused.parent.iterdir() if path != unused]
    factory.night("n3")
    assert [path.name for path in unused.parent.iterdir()] == [kept.name]


def test_images_deleted_by_hand_leave_a_killed_night(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uniad_ray.nights import steps

    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(3)

    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(steps, "score_archive", die)
        with pytest.raises(KilledError):
            factory.night("n1")
    archive = str(factory.root / "archive")
    delete_images(archive, DeletionChoice(categories=(CATEGORY,)), deleted_by="ann", reason="wish")
    report = factory.night("n1")
    assert report.nights[0].images == 0
    assert [alarm.kind for alarm in report.nights[0].alarms] == ["no_images"]


def test_pixels_of_old_nights_are_gone(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    retention(factory, images_days=15)
    factory.night("n3")
    stored = b"".join(path.read_bytes() for path in (factory.root / "archive").rglob("*") if path.is_file())
    for number in range(9):
        assert (png(1000 + number, 48) in stored) == (number >= 6)


def test_entry_says_what_and_of_which_night() -> None:
    from uniad_ray.cli.verbs.results.nightly import _expired

    entry = Expired(night=None, kind="reference", place="/w/a", images=None, reason="r")
    assert _expired(entry, dry_run=True) == "would delete reference: /w/a (r)"
    entry = Expired(night="n", kind="images", place="/a", images=3, reason="r")
    assert _expired(entry, dry_run=False) == "deleted 3 images of night n: /a (r)"


def test_compacted_images_expire_with_their_night_and_are_not_new(prepared: Path, tmp_path: Path) -> None:
    factory = nights_of(prepared, tmp_path)
    compact(str(factory.root / "archive"))
    assert len(read_manifest(Location.parse(factory.root / "archive")).shards) == 1
    retention(factory, images_days=15)
    factory.arrive(1)
    expected = [("n0", "images", 3), ("n1", "images", 3)]
    assert due(factory) == expected
    factory.night("n3")
    # Only the image that has arrived since is scored, and only those of old nights are gone.
    assert len(factory.rows("n3")) == 1
    assert held(factory) == 4
    assert due(factory) == []


def test_night_killed_before_it_scored_scores_its_compacted_images(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = nights_of(prepared, tmp_path)
    factory.arrive(2)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "score_archive", _killed)
        with pytest.raises(KilledError):
            factory.night("n3")
    compact(str(factory.root / "archive"))
    factory.night("n3")
    keys = {row["source_uri"].rpartition("/")[2] for row in factory.rows("n3")}
    assert {"01009.png", "01010.png"} <= keys


def _killed(*_: object, **__: object) -> None:
    raise KilledError
