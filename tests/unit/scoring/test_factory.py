from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.profiles import small_config

from uniad_ray.config.loading import import_class, load_config, profile_names, validate
from uniad_ray.errors import ConfigError
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of


@pytest.mark.parametrize("profile", profile_names())
def test_profiles_provide_all_needed_fields(profile: str) -> None:
    """Build without weights, because the paper profiles download theirs."""
    config = load_config(profile)
    provided: set[str] = set()
    for name, component in config.extractors.items():
        found = import_class(component.class_path, where=profile)
        options = validate(found.config_model, component.config, where=profile)
        provided |= found.fields_of(name, options)
    for expert in build_experts(config).values():
        assert expert.needs <= provided


def test_unused_network_is_not_loaded() -> None:
    config = small_config(
        "extractors.other={class: 'uniad_ray.perception.features.encoders:FeaturePyramid', "
        "config: {architecture: resnet10t, weights: {uri: 'file:/no/such/file.safetensors'}, levels: [1]}}"
    )
    pipeline = build_pipeline(config, needs_of(build_experts(config)), device="cpu")
    assert pipeline.provides == {"pyramid/level1", "pyramid/level2", "pyramid/level3"}


def test_unused_extractors_are_checked_only_on_request() -> None:
    config = small_config("extractors.student.config.levells=[1]").with_origin("test")
    needs = needs_of(build_experts(config))
    with pytest.raises(ConfigError, match=r"test: extractors\.student\.config\.levells: unknown key"):
        build_pipeline(config, needs, device="cpu")
    pipeline = build_pipeline(config, needs, device="cpu", check_unused=False)
    assert [extractor.name for extractor in pipeline.extractors] == ["pyramid"]


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
        ("experts.patch.config.seed=99", "test: experts.patch.config.seed: set seed at the top level"),
        ("experts.patch.class=uniad_ray.experts.patch.memory:Nothing", "test: experts.patch.class: class .* cannot be"),
        (
            "experts.patch.config.fields=[pyramid/level9]",
            "expert patch needs 'pyramid/level9', which no extractor provides",
        ),
        ("extractors.pyramid.config.levels=[9]", "pyramid: tf_efficientnet_lite0 has levels 0..4, not 9"),
        ("extractors.pyramid.config.weights.uri=ftp:x", "test: extractors.pyramid.config.weights.uri: "),
        ("extractors.pyramid.config.architecture=nonet", "nonet"),
    ],
)
def test_invalid_option_names_file_and_key(override: str, message: str) -> None:
    config = small_config(override).with_origin("test")
    with pytest.raises(ConfigError, match=message) as caught:
        build_pipeline(config, needs_of(build_experts(config)), device="cpu")
    assert "\n" not in str(caught.value)


def test_size_and_seed_are_shared_by_all_experts() -> None:
    config = small_config("map_size=32", "seed=5")
    (expert,) = build_experts(config).values()
    options = expert._config  # type: ignore[attr-defined]
    assert (options.map_size, options.seed) == (32, 5)


def test_an_expert_may_have_maps_of_its_own_size() -> None:
    (expert,) = build_experts(small_config("experts.patch.config.map_size=99")).values()
    assert expert._config.map_size == 99  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "experts.patch.class=support.incomplete:Nothing",
            "test: experts.patch.class: support.incomplete:Nothing is no expert; it lacks config_model, from_state, "
            "fit, score, state, a constructor that takes name, config (see uniad_ray.experts.base.ExpertClass)",
        ),
        (
            "experts.patch.class=support.incomplete:WithoutFromState",
            "test: experts.patch.class: support.incomplete:WithoutFromState is no expert; it lacks from_state (see "
            "uniad_ray.experts.base.ExpertClass)",
        ),
        (
            "experts.patch.class=support.incomplete:WithLooseOptions",
            "test: experts.patch.class: support.incomplete:WithLooseOptions is no expert; it lacks a config_model that "
            "is a StrictModel (see uniad_ray.experts.base.ExpertClass)",
        ),
        (
            "experts.patch={class: 'uniad_ray.perception.segmentation.components:Components', config: {}}",
            "test: experts.patch.class: uniad_ray.perception.segmentation.components:Components is no expert; "
            "it lacks from_state, score, a constructor that takes name, config "
            "(see uniad_ray.experts.base.ExpertClass)",
        ),
        (
            "extractors.pyramid.class=support.incomplete:WithoutFieldsOf",
            "test: extractors.pyramid.class: support.incomplete:WithoutFieldsOf is no extractor; it lacks fields_of "
            "(see uniad_ray.perception.base.ExtractorClass)",
        ),
        (
            "extractors.pyramid.class=uniad_ray.experts.patch.memory:PatchMemory",
            "test: extractors.pyramid.class: uniad_ray.experts.patch.memory:PatchMemory is no extractor; it lacks "
            "fields_of, extract, lineage, a constructor that takes name, config, device (see "
            "uniad_ray.perception.base.ExtractorClass)",
        ),
    ],
)
def test_incomplete_class_is_refused(override: str, message: str) -> None:
    config = small_config(override).with_origin("test")
    with pytest.raises(ConfigError) as caught:
        build_pipeline(config, needs_of(build_experts(config)), device="cpu")
    assert str(caught.value) == message


PLUG_IN = """
from support.incomplete import WithLooseOptions, WithoutFieldsOf, WithoutFromState
from support.learned import Learned, Witness
from uniad_ray.experts.base import ExpertClass
from uniad_ray.perception.base import ExtractorClass

good_expert: ExpertClass = Witness
good_perceiver: ExtractorClass = Learned
bad_state: ExpertClass = WithoutFromState
bad_options: ExpertClass = WithLooseOptions
bad_constructor: ExpertClass = Learned
bad_fields: ExtractorClass = WithoutFieldsOf
"""


@pytest.mark.slow
def test_mypy_checks_plug_ins(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "plug_in.py"
    file.write_text(PLUG_IN)
    tests = Path(__file__).parents[2]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", "--no-error-summary", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tests.parent,
        env={**os.environ, "MYPYPATH": str(tests)},
    )
    lines = PLUG_IN.splitlines()
    found = {
        lines[int(line.split(":")[1]) - 1].partition(":")[0]
        for line in checked.stdout.splitlines()
        if ": error: " in line
    }
    assert found == {"bad_state", "bad_options", "bad_constructor", "bad_fields"}, checked.stdout + checked.stderr
