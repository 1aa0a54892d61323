"""Fit, calibrate and store the fused set, with a student, on one and on two images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.runs import write_archive
from support.scene_images import archive_rows, scene_images

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.config.loading import load_config
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages

SIZE = 128


@pytest.mark.slow
@pytest.mark.parametrize("shots", [1, 2])
def test_fused_set_fits_on_few_images(shots: int, tmp_path: Path) -> None:
    config = load_config(
        "embedded",
        [
            "expert_set=fused",
            f"image_size=[{SIZE}, {SIZE}]",
            "map_size=32",
            "extractors.student.config.training={iterations: 2, batch_size: 2, checkpoint_every: 2}",
            "experts.structural_teacher.config.epochs=1",
            "experts.structural_student.config.epochs=1",
            "fusions.fused.selection.images=2",
            f"normal_images.most={shots}",
        ],
    )
    archive = write_archive(tmp_path / "archive", archive_rows(scene_images(4, SIZE)))
    normal_images = ArchiveNormalImages(archive, read_manifest(archive), "part", (SIZE, SIZE), config.normal_images)
    fitted = fit_category(normal_images, config)

    record = fitted.calibration
    assert record.method == ("altered_copies" if shots == 1 else "cross_fit")
    assert record.fit_images == shots
    assert record.held_out_images == (4 if shots == 1 else 2)
    assert record.selection is not None
    assert sum(record.selection.synthetic_anomalies.values()) > 0
    assert fitted.unusual == {}
    store = BundleStore(str(tmp_path / "bundles"))
    version = store.write("part", config, record, {"extractors": fitted.extractors}, fitted.files).version
    bundle = store.load("part", version)
    scorer = bundle.scorer()
    bundle.check_reference(scorer)
    verdicts = scorer.score(
        ["a" * 32, "b" * 32], np.stack([scene_images(4, SIZE)[3], np.zeros((SIZE, SIZE, 3), np.uint8)])
    )
    assert all(np.isfinite(verdict.score) for verdict in verdicts)  # type: ignore[union-attr]
    assert verdicts[1].is_anomalous  # type: ignore[union-attr]
