"""Rounds that another process judges give the same bundle as rounds of this one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.config.model import FitConfig
from uniad_ray.scoring.fitting.category import CategoryFit, FittedCategory, fit_category
from uniad_ray.scoring.fitting.judged import Judged
from uniad_ray.scoring.fitting.rounds import SharedWork

SELECTION = [
    "expert_set=both",
    "expert_sets.both=[patch, object]",
    "fusions.both={rule: excess, selection: {surface: {base: [patch], candidates: [object]}, images: 3}}",
]


class SecondFit:
    """Judges rounds with another fit, as another process would, which reads no image itself."""

    def __init__(self, count: int, config: FitConfig) -> None:
        self.count = count
        self.config = config
        self.numbers: list[int] = []
        self.seconds = -1.0

    def __call__(
        self, names: Sequence[str], numbers: Sequence[int], shared: SharedWork, seconds: float
    ) -> list[Judged]:
        self.seconds = seconds
        self.numbers += numbers
        images = DrawnNormalImages(self.count)
        with CategoryFit(images, self.config, shared=shared) as fit:
            found = [fit.judge_round(number, names) for number in reversed(numbers)]
        assert images.reads == 0
        assert shared.folder.exists()
        return found[::-1]


def fitted(count: int, config: FitConfig, elsewhere: SecondFit) -> FittedCategory:
    with CategoryFit(DrawnNormalImages(count), config, elsewhere=elsewhere) as fit:
        return fit.finish(fit.judge_first())


@pytest.mark.parametrize("overrides", [[], SELECTION])
@pytest.mark.parametrize("count", [8, 24])
def test_rounds_elsewhere_give_the_same_bundle(count: int, overrides: list[str]) -> None:
    config = small_config(*overrides)
    elsewhere = SecondFit(count, config)
    found, alone = fitted(count, config, elsewhere), fit_category(DrawnNormalImages(count), config)

    assert elsewhere.numbers == list(range(1, 8 if count == 8 else 5))
    assert elsewhere.seconds > 0.0
    assert found.calibration == alone.calibration
    assert found.files == alone.files


def test_rounds_are_judged_here_if_that_is_not_possible_elsewhere() -> None:
    config = small_config()
    with CategoryFit(DrawnNormalImages(8), config, elsewhere=lambda *_: None) as fit:
        found = fit.finish(fit.judge_first())
    assert found.files == fit_category(DrawnNormalImages(8), config).files
