"""Categories with large images have experts of their own; all others are fitted as if these were not there."""

from __future__ import annotations

import pytest

from uniad_ray.config.loading import load_config
from uniad_ray.errors import ConfigError
from uniad_ray.scoring.factory import build_experts

LARGE = "patch_large"


@pytest.mark.parametrize("expert_set", ["fused", "fused-teacher", "patch-large"])
def test_only_large_images_have_the_experts(expert_set: str) -> None:
    config = load_config("embedded", [f"expert_set={expert_set}", "large_images.pixels=1000000"])
    assert LARGE in config.expert_sets[expert_set]
    small, large = config.for_images(999, 1000), config.for_images(1000, 1000)
    assert LARGE not in small.chosen_experts
    assert large.chosen_experts == config.expert_sets[expert_set]
    assert tuple(name for name in large.chosen_experts if name != LARGE) == small.chosen_experts
    for one in (small, large):
        selection = one.chosen_fusion.selection
        assert selection is None or sorted(selection.experts) == sorted(one.chosen_experts)
    assert (small.batch_size, large.batch_size) == (16, 4)
    sides = {name: build_experts(large, only=[name])[name]._config.map_size for name in ("patch", LARGE)}  # type: ignore[attr-defined]
    assert sides == {"patch": 64, LARGE: 256}
    assert large.for_images(10, 10) == large


def test_a_stored_configuration_is_read_as_it_was_decided() -> None:
    config = load_config("embedded", [])
    for decided in (config.for_images(500, 500), config.for_images(3000, 3000)):
        stored = type(config).model_validate(decided.model_dump(mode="json", by_alias=True))
        assert stored.chosen_experts == decided.chosen_experts
        assert stored.chosen_fusion == decided.chosen_fusion


def test_large_images_can_be_switched_off() -> None:
    config = load_config("embedded", ["large_images=null", "expert_set=patch-fine"])
    assert config.for_images(5000, 5000) == config


def test_a_set_that_is_only_for_large_images_is_refused_for_small_ones() -> None:
    config = load_config("embedded", ["expert_sets.mine=[patch_large]", "expert_set=mine"])
    with pytest.raises(ConfigError, match=r"mine is for images of at least 2,300,000 pixels, and these have 640 x 480"):
        config.for_images(480, 640)


ONLY = ["expert_sets={mine: [mine]}", "expert_set=mine", "fusion={}", "fusions={}"]


def test_replaced_experts_need_no_word_about_large_images() -> None:
    config = load_config("embedded", ["experts={mine: {class: 'a:B'}}", *ONLY])
    assert config.large_images is None
    kept = load_config("embedded", ["experts={mine: {class: 'a:B'}, patch_large: {class: 'a:C'}}", *ONLY])
    assert kept.large_images is not None
    assert kept.large_images.experts == ("patch_large",)
    # A name that is given by hand is still checked.
    with pytest.raises(ConfigError, match=r"large_images\.experts names \['none'\]"):
        load_config("embedded", ["experts={mine: {class: 'a:B'}}", *ONLY, "large_images.experts=[none]"])


def test_unknown_experts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"large_images.experts names \['patch_huge'\]; experts has"):
        load_config("embedded", ["large_images.experts=[patch_huge]"])
