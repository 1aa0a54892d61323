"""The region of a run is that of its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.profiles import small_config
from support.runs import ScoredImage, write_archive, write_run
from support.trees import png

from uniad_ray.config.region import RegionMask
from uniad_ray.runs.plan import PlannedBundle
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.regions import region_of
from uniad_ray.scoring.bundles.bundle import CalibrationRecord
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration import ExpertCalibration, Threshold


def test_region_is_that_of_the_bundle_and_none_without_it(tmp_path: Path) -> None:
    mask = np.zeros((48, 48), dtype=bool)
    mask[:, :24] = True
    patch = {"patch": ExpertCalibration(mean=0.0, deviation=1.0)}
    calibration = CalibrationRecord(
        method="cross_fit",
        fit_images=3,
        held_out_images=3,
        experts=patch,
        terms=patch,
        threshold=Threshold(value=0.5, false_positive_rate=0.1, method="gaussian_tail", images=3),
    )
    images = [ScoredImage("a", png(1), 0.1)]
    archive = write_archive(tmp_path / "archive", images)
    # The run looks for its bundles beside its scores.
    store = BundleStore(str(tmp_path / "run" / "no-bundles"))
    plain = small_config()
    regional = plain.model_copy(update={"regions": {"part": RegionMask.of(mask)}})
    found = {}
    for name, config in (("plain", plain), ("regional", regional)):
        written = store.write("part", config, calibration, {}, {})
        bundle = PlannedBundle(version=written.version, digest=written.digest)
        run = write_run(tmp_path / "run", archive, images, bundle=bundle)
        found[name] = region_of(RunReader(run), "part")
    assert found["plain"] is None
    assert found["regional"] is not None
    assert found["regional"].mask == RegionMask.of(mask)
    assert found["regional"].inside.shape == plain.decoded_size
    store.root.delete_tree()
    assert region_of(RunReader(run), "part") is None
