"""Nights, killed and not, with the tasks of Ray in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.kills import KilledError
from support.nights import CATEGORY, SECRET, Factory, Receiver, receiver
from support.trees import write

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.nights import drift, steps
from uniad_ray.runs.reviews import Mark, write_marks
from uniad_ray.scoring.bundles.store import BundleStore

pytestmark = pytest.mark.usefixtures("jobs_here")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", SECRET)


def hooked(found: Receiver, **options: Any) -> dict[str, Any]:
    """Configuration with one receiver of alarms."""
    hook = {"url": found.url, "secret": {"env": "HOOK_KEY"}, "backoff_seconds": 0, "attempts": 2, **options}
    return {"notify": {"webhooks": {"operations": hook}}}


def kill_after_each_new_file(patch: pytest.MonkeyPatch, seen: set[str]) -> None:
    """Kills this process, so to speak, after each file that was not written in an earlier attempt."""
    write_bytes = Location.write_bytes

    def write_then_die(self: Location, data: bytes, *, if_absent: bool = False) -> None:
        write_bytes(self, data, if_absent=if_absent)
        # Each attempt has a lease of its own; test_commit_steps ends jobs at those.
        if self.uri not in seen and "/lease/" not in self.uri:
            seen.add(self.uri)
            raise KilledError

    patch.setattr(Location, "write_bytes", write_then_die)


def comparable(summary: dict[str, Any]) -> dict[str, Any]:
    """A night of the history without its start."""
    return {name: value for name, value in summary.items() if name != "started_at"}


def test_night_killed_after_every_file_ends_the_same_with_one_alarm(prepared: Path, tmp_path: Path) -> None:
    with receiver() as whole, receiver() as killed:
        undisturbed = Factory.copy(prepared, tmp_path / "a", **hooked(whole))
        undisturbed.arrive(25, spots=10)
        write(undisturbed.root / "camera/broken.png", b"no image")
        # Row keys follow from the path of the source.
        sources = undisturbed.document()["sources"]
        disturbed = Factory.copy(prepared, tmp_path / "b", sources=sources, **hooked(killed))
        expected = undisturbed.night("n1")
        assert [alarm.kind for alarm in expected.nights[0].alarms if alarm.kind != "drift"] == ["reject_rate"]
        seen: set[str] = set()
        kills = 0
        while True:
            with pytest.MonkeyPatch.context() as patch:
                kill_after_each_new_file(patch, seen)
                try:
                    disturbed.night("n1")
                except KilledError:
                    kills += 1
                else:
                    break
        steps_killed = {Path(uri).stem for uri in seen if "/nights/nights/" in uri}
        assert steps_killed >= {
            *("begin", "ingest", "score", "sample", "drift", "evaluation", "summary", "outbox", "end"),
            "webhook-operations",
        }
        assert kills > 20
        for row, other in zip(disturbed.rows("n1"), undisturbed.rows("n1"), strict=True):
            assert row == other
        assert len(disturbed.rows("n1")) == 25
        assert comparable(disturbed.record("n1", "summary")) == comparable(undisturbed.record("n1", "summary"))
        assert len(set(killed.ids)) == len(whole.ids) == 1
        assert disturbed.night("n1").skipped == "night n1 is already there"
        assert len(killed.ids) == 1


def test_kill_between_response_and_record_repeats_the_same_id(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as found:
        factory = Factory.copy(prepared, tmp_path, **hooked(found))
        write_bytes = Location.write_bytes

        def die_before_record(self: Location, data: bytes, *, if_absent: bool = False) -> None:
            if "/sent/" in self.uri:
                raise KilledError
            write_bytes(self, data, if_absent=if_absent)

        with monkeypatch.context() as patch:
            patch.setattr(Location, "write_bytes", die_before_record)
            with pytest.raises(KilledError):
                factory.night("n1")
        factory.night("n1")
        assert len(found.ids) == 2
        assert len(set(found.ids)) == 1


def test_nights_of_the_same_name_in_the_same_folder_have_messages_of_their_own(prepared: Path, tmp_path: Path) -> None:
    """Plants mount their folders at the same path, and a receiver drops an id that it has seen."""
    with receiver() as found:
        factory = Factory.copy(prepared, tmp_path, **hooked(found))
        factory.night("n1")
        shutil.rmtree(factory.work)
        factory.night("n1")
        assert len(set(found.ids)) == len(found.ids) == 2


def test_late_files_and_files_of_a_killed_night_are_scored_once(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(6)
    assert factory.night("n1").nights[0].images == 6
    factory.arrive(3)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "score_archive", _die)
        with pytest.raises(KilledError):
            factory.night("n2")
    factory.arrive(2)
    report = factory.night("n3")
    assert [(night.night, night.images) for night in report.nights] == [("n2", 3), ("n3", 2)]
    keys = [row["row_key"] for night in ("n1", "n2", "n3") for row in factory.rows(night)]
    assert len(keys) == len(set(keys)) == 11
    page = (factory.work / "nights.html").read_text("utf-8")
    n1, n2, n3 = (page.index(f'<th scope="row">{night}</th>') for night in ("n1", "n2", "n3"))
    assert n3 < n2 < n1
    assert 'href="runs/n2/report/report.html"' in page


def _die(*_: object, **__: object) -> None:
    raise KilledError


def test_bright_night_and_other_camera_raise_alarms_and_a_quiet_night_none(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(24)
    quiet = factory.night("n1").nights[0]
    assert quiet.alarms == ()
    assert quiet.notes == ()
    factory.arrive(24, gain=1.35)
    bright = factory.night("n2").nights[0]
    compared = {(finding.measure, finding.reference) for finding in bright.findings}
    assert compared >= {(measure, "calibration") for measure in ("brightness", "features", "score")}
    assert compared >= {(measure, "last nights") for measure in ("brightness", "features", "score")}
    texts = [alarm.text for alarm in bright.alarms if alarm.kind == "drift"]
    assert texts == [finding.text for finding in bright.findings]
    assert any("images are brighter than in the images of the fit" in text for text in texts)
    assert any("scores are higher than in the last nights" in text for text in texts)
    factory.arrive(24, size=60)
    resized = factory.night("n3").nights[0]
    sizes = [finding.text for finding in resized.findings if finding.measure == "size"]
    assert f"{CATEGORY}: image size changed: 60 x 60 pixels tonight, 48 x 48 pixels in the last nights" in sizes


def test_scores_of_another_bundle_are_not_compared(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(24)
    factory.night("n1")
    scored = factory.record("n1", "score")
    scored["categories"][CATEGORY]["bundle_version"] = "another"
    (factory.work / "nights/n1/score.json").write_text(json.dumps(scored), "utf-8")
    factory.arrive(24, gain=1.35)
    found = {(finding.measure, finding.reference) for finding in factory.night("n2").nights[0].findings}
    assert ("brightness", "last nights") in found
    assert ("score", "last nights") not in found
    assert ("features", "calibration") in found
    assert ("features", "last nights") not in found


def test_features_are_compared_only_if_asked_and_with_networks_that_are_there(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path / "off", drift={"feature_images": 0})
    factory.arrive(24, gain=1.35)
    summary = factory.night("n1").nights[0]
    assert {finding.measure for finding in summary.findings} == {"brightness", "score"}
    assert summary.notes == ()
    factory = Factory.copy(prepared, tmp_path / "corrupt")
    factory.arrive(24, gain=1.35)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "mean_features", _no_weights)
        summary = factory.night("n1").nights[0]
    assert {finding.measure for finding in summary.findings} == {"brightness", "score"}
    assert summary.notes == (f"{CATEGORY}: features are not compared: weights are gone",)
    factory.arrive(24, gain=1.35)
    found = {(finding.measure, finding.reference) for finding in factory.night("n2").nights[0].findings}
    assert ("features", "calibration") in found


def _no_weights(_: object) -> None:
    raise WeightsError("weights are gone")


def test_first_night_leaves_out_what_was_there(prepared: Path, tmp_path: Path) -> None:
    for first, images in (("new", 0), ("all", 4)):
        factory = Factory.copy(prepared, tmp_path / first, sources=[], first_night=first)
        factory.arrive(4)
        steps.ingest_source(str(factory.root / "camera"), str(factory.root / "archive"), category=CATEGORY)
        assert factory.night("n1").nights[0].images == images


@pytest.mark.parametrize("written", ["/scores/", "/runs/n1/manifest.json"])
def test_run_without_a_record_of_an_older_bundle_is_scored_again(
    written: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(2)
    seen: set[str] = set()
    with monkeypatch.context() as patch:
        kill_after_each_new_file(patch, seen)
        while not any(written in uri for uri in seen):
            with pytest.raises(KilledError):
                factory.night("n1")
    store = BundleStore(str(factory.root / "bundles"))
    old = store.versions(CATEGORY).manifests[0]
    folder = store.folder(CATEGORY, old.version)
    document = json.loads((folder / "manifest.json").read_bytes())
    document["created_at"] = "2026-01-01T00:00:00+00:00"
    (folder / "manifest.json").write_json(document)
    store.publish(CATEGORY, old.version)
    delete_tree = Location.delete_tree

    def die_after_the_plan(self: Location) -> None:
        if (self / "plan.json").exists():
            (self / "plan.json").delete()
            raise KilledError
        delete_tree(self)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "delete_tree", die_after_the_plan)
        with pytest.raises(KilledError):
            factory.night("n1")
    report = factory.night("n1")
    assert report.nights[0].images == 2
    assert {row["bundle_digest"] for row in factory.rows("n1")} == {store.manifest(CATEGORY, old.version).digest}
    assert store.manifest(CATEGORY, old.version).digest != old.digest


def test_unreadable_source_raises_an_alarm_and_the_others_go_on(prepared: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "unmounted")
    factory = Factory.copy(prepared, tmp_path)
    sources = [{"path": missing}, *factory.document()["sources"]]
    factory.options["sources"] = sources
    factory.arrive(2)
    night = factory.night("n1").nights[0]
    assert night.images == 2
    assert [(alarm.kind, alarm.text) for alarm in night.alarms] == [
        ("source", f"{missing}: no files there; check the path and the mount")
    ]


def test_category_without_bundle_waits_and_raises_an_alarm(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path)
    pointer = factory.root / "bundles" / CATEGORY / "current.json"
    kept = pointer.read_bytes()
    pointer.unlink()
    factory.arrive(3)
    night = factory.night("n1").nights[0]
    assert (night.images, night.waiting, [alarm.kind for alarm in night.alarms]) == (0, {CATEGORY: 3}, ["no_bundle"])
    pointer.write_bytes(kept)
    assert factory.night("n2").nights[0].images == 3


def test_rejected_file_counts_in_its_first_night_only(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(2)
    write(factory.root / "camera/broken.png", b"no image")
    first = factory.night("n1").nights[0]
    assert first.rejected_files == 1
    assert [alarm.kind for alarm in first.alarms] == ["error_share"]
    second = factory.night("n2").nights[0]
    assert second.rejected_files == 0
    assert [alarm.kind for alarm in second.alarms] == ["no_images"]


def test_marks_of_reviewers_evaluate_an_earlier_night_again(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path)
    factory.arrive(6, spots=2)
    factory.night("n1")
    assert factory.record("n1", "evaluation")["image_auroc"] == {}
    marks = [
        Mark(row["row_key"], CATEGORY, "confirmed", row["score"], row["threshold"], "r", "2026-01-01T00:00:00")
        for row in factory.rows("n1")
    ]
    write_marks(Location.parse(factory.work / "runs/n1"), marks)
    factory.night("n2")
    assert factory.record("n1", "evaluation")["image_auroc"] == {CATEGORY: 1.0}


def test_dry_run_shows_the_message_and_the_next_call_sends_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as found:
        factory = Factory.copy(prepared, tmp_path, **hooked(found))
        monkeypatch.delenv("HOOK_KEY")
        report = factory.night("n1", dry_run=True)
        (shown,) = report.deliveries
        assert shown.result == "would be sent"
        assert '"kind": "no_images"' in shown.detail
        assert SECRET not in report.model_dump_json()
        assert found.received == []
        with pytest.raises(ConfigError, match=r"operations\.secret: environment variable HOOK_KEY is not set"):
            factory.night("n1")
        monkeypatch.setenv("HOOK_KEY", SECRET)
        assert [entry.result for entry in factory.night("n1").deliveries] == ["sent"]
        assert len(found.received) == 1


def test_message_that_nobody_took_is_sent_by_the_next_call(prepared: Path, tmp_path: Path) -> None:
    with receiver([503, 503]) as found:
        factory = Factory.copy(prepared, tmp_path, **hooked(found))
        report = factory.night("n1")
        assert [entry.result for entry in report.deliveries] == ["failed"]
        assert "responded with status 503" in report.deliveries[0].detail
        assert report.has_failed
        assert [(entry.night, entry.result) for entry in factory.night("n1").deliveries] == [("n1", "sent")]
        assert len(set(found.ids)) == 1


def test_repeated_call_starts_no_second_night(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path)
    from uniad_ray.nights import job
    from uniad_ray.nights.config import NightlyConfig

    config = NightlyConfig.model_validate(factory.document())
    first = job.nightly(config)
    assert len(first.nights) == 1
    again = job.nightly(config)
    assert again.nights == ()
    assert "the next may begin at" in (again.skipped or "")
    soon = NightlyConfig.model_validate({**factory.document(), "min_hours": 0})
    assert job.nightly(soon).nights[0].night == f"{first.nights[0].night}-2"


def test_old_runs_are_deleted_with_a_record_and_the_history_stays(prepared: Path, tmp_path: Path) -> None:
    factory = Factory.copy(prepared, tmp_path, keep_runs=1)
    for name in ("n1", "n2", "n3"):
        factory.arrive(1)
        factory.night(name)
    assert sorted(path.name for path in (factory.work / "runs").iterdir()) == ["n3"]
    assert factory.record("n1", "run-deleted")["reason"] == "keep_runs: 1"
    page = (factory.work / "nights.html").read_text("utf-8")
    assert "n1" in page
    assert "runs/n1/" not in page


def test_deletion_of_a_marked_run_that_was_interrupted_is_finished(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = Factory.copy(prepared, tmp_path, keep_runs=1)
    factory.arrive(1)
    factory.night("n1")
    (row,) = factory.rows("n1")
    mark = Mark(row["row_key"], CATEGORY, "confirmed", row["score"], row["threshold"], "r", "2026-01-01T00:00:00")
    write_marks(Location.parse(factory.work / "runs/n1"), [mark])
    delete_tree = Location.delete_tree

    def die_half_way(self: Location) -> None:
        delete_tree(self / "marks")
        delete_tree(self / "scores")
        raise KilledError

    factory.arrive(1)
    with monkeypatch.context() as patch:
        patch.setattr(Location, "delete_tree", die_half_way)
        with pytest.raises(KilledError):
            factory.night("n2")
    assert [night.night for night in factory.night("n2").nights] == ["n2"]
    assert not (factory.work / "runs/n1").exists()
