"""The region and the value range of a run are those of its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.profiles import small_config
from support.runs import ScoredImage, write_archive, write_run
from support.trees import mask_png, png

from uniad_ray.cli.verbs.results.compare import as_text
from uniad_ray.config.region import RegionMask
from uniad_ray.evaluation.run import evaluate
from uniad_ray.reporting.comparison.build import compare
from uniad_ray.runs.plan import PlannedBundle
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.regions import bundle_is_gone, region_of, view_differences
from uniad_ray.scoring.bundles.bundle import CalibrationRecord
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration import ExpertCalibration, Threshold

PATCH = {"patch": ExpertCalibration(mean=0.0, deviation=1.0)}
CALIBRATION = CalibrationRecord(
    method="cross_fit",
    fit_images=3,
    held_out_images=3,
    experts=PATCH,
    terms=PATCH,
    threshold=Threshold(value=0.5, false_positive_rate=0.1, method="gaussian_tail", images=3),
)


def half(columns: int) -> RegionMask:
    mask = np.zeros((48, 48), dtype=bool)
    mask[:, :columns] = True
    return RegionMask.of(mask)


def test_compared_runs_name_what_their_bundles_see_differently(tmp_path: Path) -> None:
    images = [ScoredImage("a", png(1), 0.1)]
    archive = write_archive(tmp_path / "archive", images)
    readers: dict[str, RunReader] = {}
    for name, changes in (
        ("plain", {}),
        ("again", {}),
        ("left", {"regions": {"part": half(24)}}),
        ("more", {"regions": {"part": half(25)}}),
        ("deep", {"value_range": (0, 4095)}),
    ):
        # A run looks for its bundles beside its scores.
        store = BundleStore(str(tmp_path / name / "no-bundles"))
        written = store.write("part", small_config().model_copy(update=changes), CALIBRATION, {}, {})
        bundle = PlannedBundle(version=written.version, digest=written.digest)
        readers[name] = RunReader(write_run(tmp_path / name, archive, images, bundle=bundle))
    regions = ["the bundles of part have different regions, so other pixels count"]
    ranges = ["the bundles of part see 16-bit images in different value ranges"]
    assert view_differences(readers["plain"], readers["again"]) == []
    assert view_differences(readers["plain"], readers["left"]) == regions
    assert view_differences(readers["left"], readers["more"]) == regions
    assert view_differences(readers["left"], readers["left"]) == []
    assert view_differences(readers["plain"], readers["deep"]) == ranges
    assert view_differences(readers["left"], readers["deep"]) == regions + ranges
    report = compare([str(tmp_path / "plain"), str(tmp_path / "left")], resamples=0)
    assert f"note: {tmp_path}/left: {regions[0]}" in as_text(report)
    BundleStore(str(tmp_path / "left" / "no-bundles")).root.delete_tree()
    assert view_differences(readers["plain"], readers["left"]) == []


def test_region_is_that_of_the_bundle_and_none_without_it(tmp_path: Path) -> None:
    images = [ScoredImage("a", png(1), 0.1)]
    archive = write_archive(tmp_path / "archive", images)
    # The run looks for its bundles beside its scores.
    store = BundleStore(str(tmp_path / "run" / "no-bundles"))
    plain = small_config()
    regional = plain.model_copy(update={"regions": {"part": half(24)}})
    found = {}
    for name, config in (("plain", plain), ("regional", regional)):
        written = store.write("part", config, CALIBRATION, {}, {})
        bundle = PlannedBundle(version=written.version, digest=written.digest)
        run = write_run(tmp_path / "run", archive, images, bundle=bundle)
        found[name] = region_of(RunReader(run), "part")
    assert found["plain"] is None
    assert found["regional"] is not None
    assert found["regional"].mask == half(24)
    assert found["regional"].inside.shape == plain.decoded_size
    assert not bundle_is_gone(RunReader(run), "part")
    store.root.delete_tree()
    assert region_of(RunReader(run), "part") is None
    assert bundle_is_gone(RunReader(run), "part")


def test_pixel_metrics_say_if_a_region_may_be_unknown(tmp_path: Path) -> None:
    peak = np.zeros((4, 4), np.float16)
    peak[1:3, 1:3] = 1
    images = [
        ScoredImage("a", png(1), 0.1, anomaly_map=np.zeros((4, 4), np.float16)),
        ScoredImage("c", png(2, spot=True), 0.9, label="anomalous", anomaly_map=peak, masks=(mask_png(),)),
    ]
    archive = write_archive(tmp_path / "archive", images)
    store = BundleStore(str(tmp_path / "run" / "no-bundles"))
    written = store.write("part", small_config(), CALIBRATION, {}, {})
    bundle = PlannedBundle(version=written.version, digest=written.digest)
    run = write_run(tmp_path / "run", archive, images, bundle=bundle)

    def notes() -> list[str]:
        return [note for note in evaluate(run.uri, resamples=0).notes if "bundle of the run is gone" in note]

    assert notes() == []
    store.root.delete_tree()
    assert notes() == [
        "part: the bundle of the run is gone, so the pixel metrics count all of the images, also what was outside of a "
        "region"
    ]
