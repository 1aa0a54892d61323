"""Single steps of a night, with the tasks of Ray in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.nights import CATEGORY, Factory, without_ray, write_factory
from support.trees import write

from uniad_ray.archive.exclusions import exclude_images, include_images
from uniad_ray.archive.stores.location import Location
from uniad_ray.drift.samples import read_sample, write_sample
from uniad_ray.runs.plan import read_run
from uniad_ray.scoring.bundles.store import BundleStore


@pytest.fixture
def factory(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Factory:
    without_ray(monkeypatch)
    return Factory.copy(prepared, tmp_path)


def test_excluded_images_leave_the_reference_of_drift(factory: Factory, prepared: Path) -> None:
    factory.arrive(2)
    factory.night("n1")
    folder = factory.work / "reference" / CATEGORY
    (before,) = folder.iterdir()
    every = read_sample(Location.parse(before))
    assert sum(image.width is not None for image in every) == 24
    exclude_images(str(prepared / "fitted"), ["003.png"], reason="bright")
    factory.arrive(2)
    factory.night("n2")
    (after,) = set(folder.iterdir()) - {before}
    assert after.name.startswith(before.stem)
    kept = read_sample(Location.parse(after))
    gone = {image.row_key for image in every} - {image.row_key for image in kept}
    assert len(gone) == 1
    include_images(str(prepared / "fitted"), ["003.png"])
    factory.arrive(2)
    factory.night("n3")
    assert set(folder.iterdir()) == {before, after}


def test_quiet_night_is_quiet_and_a_bright_one_names_the_experts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ("expert_sets.pair=[patch, composition]", "expert_set=pair")
    write_factory(tmp_path / "prepared", *pair)
    without_ray(monkeypatch)
    factory = Factory.copy(tmp_path / "prepared", tmp_path)
    factory.arrive(24)
    assert factory.night("n1").nights[0].findings == ()
    sample = Location.parse(factory.work / "nights/n1/sample.parquet")
    rows = {row["row_key"]: row for row in factory.rows("n1")}
    for image in read_sample(sample):
        experts = rows[image.row_key]["experts"]
        assert image.experts == {entry["expert"]: entry["calibrated"] for entry in experts}
        assert set(image.experts) == {"patch", "composition"}
    # References of an older version have no experts, and are measured again.
    (reference,) = (factory.work / "reference" / CATEGORY).iterdir()
    place = Location.parse(reference)
    write_sample(place, [replace(image, experts={}) for image in read_sample(place)])
    factory.arrive(24, gain=1.35)
    night = factory.night("n2").nights[0]
    named = {(found.expert, found.reference) for found in night.findings if found.measure == "expert"}
    assert named >= {("patch", "calibration"), ("patch", "last nights")}
    assert any("scores of the expert patch are higher than in the last nights" in alarm.text for alarm in night.alarms)
    assert "patch" in (factory.work / "nights.html").read_text("utf-8")
    # Scores of another bundle have another scale.
    scored = factory.record("n2", "score")
    scored["categories"][CATEGORY]["bundle_version"] = "another"
    for name in ("n1", "n2"):
        (factory.work / f"nights/{name}/score.json").write_text(json.dumps(scored), "utf-8")
    factory.arrive(24, gain=1.7)
    compared = {found.reference for found in factory.night("n3").nights[0].findings if found.measure == "expert"}
    assert compared == {"calibration"}


def test_images_for_review_are_counted_apart(factory: Factory) -> None:
    store = BundleStore(str(factory.root / "bundles"))
    bundle = store.load(CATEGORY)
    stored = bundle.manifest.calibration.threshold
    high = stored.model_copy(update={"value": 1e6})
    low = stored.model_copy(update={"value": -1e6, "false_positive_rate": 0.5})
    store.publish(CATEGORY, store.write_threshold(bundle, high, low, {}).version)
    factory.arrive(3)
    summary = factory.night("n1").nights[0]
    assert (summary.images, summary.anomalous, summary.in_review) == (3, 0, 3)
    assert summary.categories[CATEGORY].in_review == 3
    assert read_run(Location.parse(factory.work / "runs/n1")).in_review == 3
    factory.options["score"] = {"maps": "none", "false_positive_rate": 0.6}
    factory.arrive(1)
    noted = factory.night("n2").nights[0]
    assert noted.in_review == 0
    assert [note for note in noted.notes if "no image is for review" in note]


def test_source_with_a_manifest_gives_rows_with_metadata(factory: Factory, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    factory.options["sources"] = [
        {"path": str(tmp_path / "camera"), "category": CATEGORY, "manifest": str(listed)},
    ]
    factory.arrive(3)
    names = sorted(path.name for path in (tmp_path / "camera").iterdir())
    write(listed, "\n".join(["path,serial", *(f"{name},S{name[4]}" for name in names[:2])]).encode())
    assert factory.night("n1").nights[0].images == 2
    assert [row["metadata"] for row in factory.rows("n1")] == [
        [{"name": "serial", "value": "S0"}],
        [{"name": "serial", "value": "S1"}],
    ]
    # The next night reads what the list has got since.
    write(listed, "\n".join(["path,serial", *(f"{name},S{name[4]}" for name in names)]).encode())
    assert factory.night("n2").nights[0].images == 1
    listed.unlink()
    assert [alarm.kind for alarm in factory.night("n3").nights[0].alarms] == ["source", "no_images"]
