from __future__ import annotations

import pytest
from support.profiles import small_config

from uniad_ray.config.loading import import_class, load_config, profile_names, validate
from uniad_ray.errors import ConfigError
from uniad_ray.scoring.components import build_experts, build_pipeline, needs_of


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_names_real_networks_that_provide_what_its_experts_need(profile: str) -> None:
    """Planned without weights, since those of the papers come from a hub."""
    config = load_config(profile)
    provided: set[str] = set()
    for name, component in config.perceivers.items():
        found = import_class(component.class_path, where=profile)
        options = validate(found.config_model, component.config, where=profile)
        provided |= found.fields_of(name, options)
    for expert in build_experts(config).values():
        assert expert.needs <= provided


def test_a_network_that_nobody_needs_is_never_loaded() -> None:
    config = small_config(
        "perceivers.other={class: 'uniad_ray.perception.encoders:FeaturePyramid', config: {architecture: resnet10t, "
        "weights: {uri: 'file:/no/such/file.safetensors'}, levels: [1]}}"
    )
    pipeline = build_pipeline(config, needs_of(build_experts(config)), device="cpu")
    assert pipeline.provides == {"pyramid/level1", "pyramid/level2", "pyramid/level3"}


def test_perceivers_that_nobody_needs_are_checked_only_where_that_is_asked_for() -> None:
    config = small_config("perceivers.student.config.levells=[1]").with_origin("test")
    needs = needs_of(build_experts(config))
    with pytest.raises(ConfigError, match=r"test: perceivers\.student\.config\.levells: unknown key"):
        build_pipeline(config, needs, device="cpu")
    pipeline = build_pipeline(config, needs, device="cpu", check_unused=False)
    assert [perceiver.name for perceiver in pipeline.perceivers] == ["pyramid"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "experts.patch.config.memori=3",
            "test: experts.patch.config.memori: unknown key; allowed: candidates, distance",
        ),
        (
            "experts.patch.config.memory_size=none",
            "test: experts.patch.config.memory_size: input should be a valid int",
        ),
        ("experts.patch.config.map_size=99", "test: experts.patch.config.map_size: set map_size at the top level"),
        ("experts.patch.class=uniad_ray.experts.patch_memory:Nothing", "test: experts.patch.class: class .* cannot be"),
        (
            "experts.patch.config.fields=[pyramid/level9]",
            "expert patch needs 'pyramid/level9', which no perceiver provides",
        ),
        ("perceivers.pyramid.config.levels=[9]", "pyramid: tf_efficientnet_lite0 has the levels 0..4, not 9"),
        ("perceivers.pyramid.config.weights.uri=ftp:x", "test: perceivers.pyramid.config.weights.uri: "),
        ("perceivers.pyramid.config.architecture=nonet", "nonet"),
    ],
)
def test_wrong_options_name_file_key_and_what_is_allowed(override: str, message: str) -> None:
    config = small_config(override).with_origin("test")
    with pytest.raises(ConfigError, match=message) as caught:
        build_pipeline(config, needs_of(build_experts(config)), device="cpu")
    assert "\n" not in str(caught.value)


def test_size_and_seed_are_set_once_for_all_experts() -> None:
    config = small_config("map_size=32", "seed=5")
    (expert,) = build_experts(config).values()
    options = expert._config  # type: ignore[attr-defined]
    assert (options.map_size, options.seed) == (32, 5)
