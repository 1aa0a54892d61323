"""The contract of experts, tested on every expert of the profiles."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from safetensors.numpy import load
from support.contract_fields import NORMAL_IMAGES, OTHERS, WIDE, extract, stream_of

from uniad_ray.config.loading import load_config, profile_names
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.experts.base import Evidence, Expert
from uniad_ray.perception.base import State
from uniad_ray.scoring.bundles.bundle import encode_state
from uniad_ray.scoring.factory import build_experts

SMALL = {
    "epochs": 2,
    "channels": 32,
    "hidden": 8,
    "batch_vectors": 64,
    "max_vectors": 500,
    "memory_size": 40,
    "candidates": 2000,
}
"""Options for a quick fit; each expert uses those that it has."""

EVERY = [(profile, name) for profile in profile_names() for name in load_config(profile).experts]
every_expert = pytest.mark.parametrize(("profile", "name"), EVERY, ids=["-".join(entry) for entry in EVERY])


@functools.cache
def config_of(profile: str, name: str, *overrides: str) -> FitConfig:
    """The profile with this expert alone, at a small size."""
    config = load_config(
        profile,
        [
            "map_size=16",
            "image_size=[64, 64]",
            f"expert_sets.only=[{name}]",
            "expert_set=only",
            "large_images=null",
            *overrides,
        ],
    )
    fields = type(build_experts(config)[name]).config_model.model_fields if not overrides else ()
    small = [f"experts.{name}.config.{option}={value}" for option, value in SMALL.items() if option in fields]
    return config_of(profile, name, *small) if small else config


def fresh(profile: str, name: str) -> Expert:
    return build_experts(config_of(profile, name))[name]


def fit(profile: str, name: str, keys: tuple[str, ...] = NORMAL_IMAGES, batch: int = 5) -> Expert:
    expert = fresh(profile, name)
    expert.fit(stream_of(keys, expert.needs, batch))
    return expert


@functools.cache
def fitted(profile: str, name: str) -> Expert:
    return fit(profile, name)


def score(expert: Expert, keys: tuple[str, ...] = OTHERS) -> Evidence:
    return expert.score(extract(keys, expert.needs))


def content(state: State) -> tuple[dict[str, tuple[str, tuple[int, ...], bytes]], str]:
    """All of a state, to be compared byte by byte."""
    arrays = {key: (str(value.dtype), value.shape, value.tobytes()) for key, value in state.arrays.items()}
    return arrays, json.dumps(dict(state.document), sort_keys=True)


def assert_same(found: Evidence, expected: Evidence) -> None:
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert (found.maps is None) == (expected.maps is None)
    if found.maps is not None and expected.maps is not None:
        assert found.maps.tobytes() == expected.maps.tobytes()
    assert [list(lines) for lines in found.reasons] == [list(lines) for lines in expected.reasons]


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for entry in value.values() for text in strings(entry))
    elif isinstance(value, list | tuple):
        yield from (text for entry in value for text in strings(entry))


def test_both_profiles_name_experts() -> None:
    assert {profile for profile, _ in EVERY} >= {"embedded", "paper"}
    assert len(EVERY) > 20


@every_expert
def test_name_and_needs_follow_from_the_configuration(profile: str, name: str) -> None:
    expert = fresh(profile, name)
    assert isinstance(expert, Expert)
    assert expert.name == name
    assert isinstance(expert.needs, frozenset)
    assert expert.needs
    options = type(expert).config_model.model_validate(config_of(profile, name).experts[name].config)
    said = set(strings(options.model_dump()))
    assert {need for need in expert.needs if need not in said and need.rpartition("/")[0] not in said} == set()


@every_expert
def test_scores_are_one_finite_number_for_each_image(profile: str, name: str) -> None:
    scores = score(fitted(profile, name)).scores
    assert (scores.dtype, scores.shape) == (np.float32, (len(OTHERS),))
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) > 1, "all images look alike, so nothing was compared"


@every_expert
def test_maps_are_one_for_each_image_or_none(profile: str, name: str) -> None:
    maps = score(fitted(profile, name)).maps
    if maps is not None:
        assert (maps.dtype, maps.ndim, len(maps)) == (np.float32, 3, len(OTHERS))
        assert np.isfinite(maps).all()


@every_expert
def test_reasons_are_sentences_for_each_image(profile: str, name: str) -> None:
    reasons = score(fitted(profile, name)).reasons
    assert len(reasons) == len(OTHERS)
    assert all(isinstance(line, str) and line for lines in reasons for line in lines)


@every_expert
def test_result_does_not_depend_on_the_batch(profile: str, name: str) -> None:
    expert = fitted(profile, name)
    together = score(expert)
    for index, key in enumerate(OTHERS):
        assert_same(score(expert, (key,)), together.row(index))


@every_expert
def test_scoring_twice_gives_the_same_bytes(profile: str, name: str) -> None:
    expert = fitted(profile, name)
    before = content(expert.state())
    assert_same(score(expert), score(expert))
    assert content(expert.state()) == before


@every_expert
def test_state_survives_its_files_and_scores_the_same(profile: str, name: str) -> None:
    expert = fitted(profile, name)
    files = encode_state("experts", name, expert.state())
    stored = State(load(files[f"experts/{name}.safetensors"]), json.loads(files[f"experts/{name}.json"]))
    restored = build_experts(config_of(profile, name), states={name: stored})[name]
    assert (restored.name, restored.needs) == (expert.name, expert.needs)
    assert_same(score(restored), score(expert))
    assert encode_state("experts", name, restored.state()) == files


@every_expert
def test_fit_does_not_depend_on_order_and_batches(profile: str, name: str) -> None:
    shuffled = tuple(np.random.default_rng(0).permutation(NORMAL_IMAGES).tolist())
    assert shuffled != NORMAL_IMAGES
    assert content(fit(profile, name, shuffled, batch=3).state()) == content(fitted(profile, name).state())


@every_expert
def test_rectangular_images_are_scored_like_square_ones(profile: str, name: str) -> None:
    expert = fresh(profile, name)
    expert.fit(stream_of(NORMAL_IMAGES, expert.needs, width=WIDE))
    perception = extract(OTHERS, expert.needs, WIDE)
    found = expert.score(perception)
    assert np.isfinite(found.scores).all()
    assert len(set(found.scores.tolist())) > 1
    square = score(fitted(profile, name))
    assert (found.maps is None) == (square.maps is None)
    if found.maps is not None and square.maps is not None:
        assert found.maps.shape == square.maps.shape
        assert np.isfinite(found.maps).all()
    restored = build_experts(config_of(profile, name), states={name: expert.state()})[name]
    assert_same(restored.score(perception), found)


@every_expert
def test_only_declared_fields_are_read(profile: str, name: str) -> None:
    expert = fitted(profile, name)
    perception = extract(OTHERS, {*expert.needs, "other/level2", "other/text", "other/segments"})
    assert_same(expert.score(perception), expert.score(perception.restricted(expert.needs)))


@every_expert
def test_unknown_option_is_refused_in_one_line(profile: str, name: str) -> None:
    config = config_of(profile, name, f"experts.{name}.config.no_such_option=1")
    with pytest.raises(ConfigError) as caught:
        build_experts(config)
    start = f"profile {profile} with --set: experts.{name}.config.no_such_option: unknown key; allowed: "
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_experts_import_no_ray() -> None:
    paths = {load_config(profile).experts[name].class_path.partition(":")[0] for profile, name in EVERY}
    code = f"import sys\nfor path in {sorted(paths)!r}:\n    __import__(path)\nsys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
