from __future__ import annotations

import pytest
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.fitting.synthetic.kinds import SYNTHETIC_ANOMALIES
from uniad_ray.scoring.fitting.workload import images_of_fit


@pytest.mark.parametrize("overrides", [[], ["calibration={holdout_from: 12, holdout: 0.5}"]])
def test_estimate_is_what_a_fit_reports(overrides: list[str]) -> None:
    config = small_config("experts.patch.config.memory_size=20", *overrides)
    batches: list[int] = []
    record = fit_category(DrawnNormalImages(12), config, on_progress=batches.append).calibration
    assert sum(batches) == 12 + record.held_out_images
    # Which images are held out depends on their content.
    assert abs(images_of_fit(12, config) - sum(batches)) <= 3


def test_copies_and_synthetic_anomalies_count() -> None:
    # With fewer than 5 images, each gets altered copies, which are never held out.
    assert images_of_fit(40, small_config("normal_images.most=3")) == 6 + 3
    with_selection = small_config("expert_set=fused-teacher", "fusions.fused-teacher.selection.images=4")
    assert images_of_fit(7, with_selection) == 7 + 7 + 4 * len(SYNTHETIC_ANOMALIES)
    assert images_of_fit(3, with_selection) == 6 + 3 + 3 * len(SYNTHETIC_ANOMALIES)
    assert images_of_fit(0, with_selection) == 0
