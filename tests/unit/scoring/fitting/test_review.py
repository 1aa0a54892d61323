"""A fit with a second threshold for review."""

from __future__ import annotations

import pytest
from support.profiles import small_config
from support.scene_images import GivenNormalImages, scene_images

from uniad_ray.errors import ConfigError
from uniad_ray.scoring.calibration import choose_threshold
from uniad_ray.scoring.calibration_scores import FILE_NAME, decode_calibration_scores
from uniad_ray.scoring.fitting.category import fit_category


def test_fit_chooses_both_thresholds_from_the_same_scores() -> None:
    config = small_config("calibration.folds=2", "calibration.review_rate=0.4", "experts.patch.config.memory_size=50")
    fitted = fit_category(GivenNormalImages(scene_images(6, 64)), config)
    scores = decode_calibration_scores(fitted.files[FILE_NAME]).fused
    assert fitted.calibration.review == choose_threshold(scores, 0.4)
    assert fitted.calibration.review.value < fitted.calibration.threshold.value


def test_review_must_be_wider_than_the_threshold() -> None:
    with pytest.raises(ConfigError, match=r"review_rate is 0\.01; it must be above false_positive_rate"):
        small_config("calibration.false_positive_rate=0.05", "calibration.review_rate=0.01")
