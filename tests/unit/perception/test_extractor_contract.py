"""Contract tests for every extractor in the built-in profiles, with tiny random networks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from support.contract_fields import NORMAL_IMAGES, OTHERS, SIDE, WIDE, extract, stream_of
from support.tiny_networks import save_clip, save_grounding_dino, save_sam, save_sentence_t5

from uniad_ray.config.loading import import_class, load_config, profile_names, validate
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Extractor, Fields, LearnedExtractor, State, StatefulExtractor
from uniad_ray.perception.features.student import Student, TeacherShapes, build_student
from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.bundles.bundle import encode_state

Name = tuple[str, str]
Build = Callable[[Name], Extractor]

PROFILES = {profile: load_config(profile) for profile in profile_names()}
EVERY: list[Name] = [(profile, name) for profile, config in PROFILES.items() for name in config.extractors]
LEFT_OUT = {
    ("paper", "caption"): "asks a model behind a server; see test_captioners.py and test_server.py",
    (
        "paper",
        "named_description",
    ): "asks a model behind a server; see test_object_describer.py and tests/paper_profile",
}
KEYS = OTHERS[:3]
COVERED = [entry for entry in EVERY if entry not in LEFT_OUT]
FOLDERS = {"clip": save_clip, "t5": save_sentence_t5, "sam": save_sam, "grounding_dino": save_grounding_dino}

# With random parameters, masks are unstable, few are confident, and their boxes are similar.
_UNSURE = {"points_per_side": 4, "side": 48, "predicted_iou": 0.01, "stability": 0.0, "box_overlap": 1.0}
TINY: dict[str, dict[str, Any]] = {
    "FeaturePyramid": {
        "architecture": "test_resnet",
        "weights": {"uri": "random:1"},
        "key_mapping": "timm",
        "levels": [1, 2],
    },
    "TokenEncoder": {
        "architecture": "test_vit",
        "weights": {"uri": "random:1"},
        "blocks": [1, 3],
        "input_size": 64,
    },
    "Student": {
        "architecture": "test_resnet",
        "initial": None,
        "levels": [1, 2],
        "structural_teacher": ["pyramid/level1", "pyramid/level2"],
    },
    "Components": {"candidates": 2000, "restarts": 2, "crf": {"grid": 16}},
    "PartSegmenter": {"side": 60, "images": 4},
    "ClipTextEncoder": {"weights": "clip"},
    "SentenceEncoder": {"weights": "t5"},
    "ClipObjectFeatures": {"weights": "clip"},
    "ClipNamer": {"weights": "clip", "classes": ["block", "pin"]},
    "SamEncoder": {"weights": "sam"},
    "SamSegmenter": {"weights": "sam", **_UNSURE},
    "GroundedSamSegmenter": {
        "weights": "grounding_dino",
        "sam_weights": "sam",
        "classes": ["bolt", "nut"],
        "side": 48,
        "least_score": 0.0,
        "box_overlap": 1.0,
    },
}
"""Options by class for a tiny random network; the weights are keys of `FOLDERS`."""

every_extractor = pytest.mark.parametrize("entry", COVERED, ids=["-".join(entry) for entry in COVERED])


def class_of(entry: Name) -> Any:
    profile, name = entry
    return import_class(PROFILES[profile].extractors[name].class_path, where=profile)


@pytest.fixture(scope="module")
def options_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Name], dict[str, Any]]:
    """The options of an extractor in its profile, with a tiny network; image files are five times as large."""
    folders: dict[str, Path] = {}

    def weights(folder: str) -> dict[str, str]:
        if folder not in folders:
            pytest.importorskip("transformers", reason="the networks of transformers are an extra")
            folders[folder] = tmp_path_factory.mktemp(folder)
            FOLDERS[folder](folders[folder])
        return {"uri": f"file:{folders[folder]}"}

    def options(entry: Name) -> dict[str, Any]:
        profile, name = entry
        tiny = TINY.get(class_of(entry).__name__, {})
        named = {key: weights(value) for key, value in tiny.items() if isinstance(value, str) and value in FOLDERS}
        own = PROFILES[profile].extractors[name].config
        return {**own, **({"input_size": 5 * SIDE} if own.get("originals") else {}), **tiny, **named}

    return options


@pytest.fixture(scope="module")
def fresh(options_of: Callable[[Name], dict[str, Any]]) -> Build:
    """Builds an unfitted extractor."""

    def build(entry: Name) -> Extractor:
        found = class_of(entry)
        built: Extractor = found(entry[1], found.config_model.model_validate(options_of(entry)), "cpu")
        return built

    return build


@pytest.fixture(scope="module")
def fitted(fresh: Build) -> Build:
    """Returns a fitted extractor, shared by all tests."""
    built: dict[Name, Extractor] = {}

    def get(entry: Name) -> Extractor:
        if entry not in built:
            built[entry] = fit(fresh(entry))
        return built[entry]

    return get


def fit(extractor: Extractor, keys: tuple[str, ...] = NORMAL_IMAGES, batch: int = 5, width: int = SIDE) -> Extractor:
    """Fits an extractor; a student gets random parameters, because a higher layer trains it."""
    if isinstance(extractor, LearnedExtractor):
        extractor.fit(stream_of(keys, extractor.needs, batch, width))
    if isinstance(extractor, Student):
        columns = width // 8
        shapes = TeacherShapes(levels=((8, 8, columns), (8, 4, columns // 2)), logical=(8, 8, columns))
        torch.manual_seed(0)
        arrays = {name: value.numpy() for name, value in build_student(extractor.config, shapes).state_dict().items()}
        extractor.restore(State(arrays=arrays, document=shapes.document()))
    return extractor


def fields_of(extractor: Extractor, keys: tuple[str, ...] = KEYS) -> Fields:
    return extractor.extract(extract(keys, extractor.needs))


def row(fields: Fields, index: int) -> dict[str, object]:
    """All fields of one image, for comparison byte by byte."""
    return {name: _plain(values[index]) for name, values in fields.items()}


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, Segments):
        return value.size, value.names, {name: array.tobytes() for name, array in value.arrays().items()}
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for entry in value.values() for text in strings(entry))
    elif isinstance(value, list | tuple):
        yield from (text for entry in value for text in strings(entry))


def test_extractors_are_left_out_for_a_reason() -> None:
    assert set(LEFT_OUT) <= set(EVERY)
    assert all(LEFT_OUT.values())
    assert set(TINY) <= {class_of(entry).__name__ for entry in COVERED}
    assert len(COVERED) > 25


@every_extractor
def test_needs_and_provides_follow_from_configuration(
    entry: Name, fresh: Build, options_of: Callable[[Name], dict[str, Any]]
) -> None:
    extractor = fresh(entry)
    assert isinstance(extractor, Extractor)
    assert extractor.name == entry[1]
    options = class_of(entry).config_model.model_validate(options_of(entry))
    assert extractor.provides
    assert extractor.provides == class_of(entry).fields_of(entry[1], options)
    assert all(field.startswith(f"{entry[1]}/") for field in extractor.provides)
    said = set(strings(options.model_dump()))
    assert {need for need in extractor.needs if need not in said and need.rpartition("/")[0] not in said} == set()


@every_extractor
def test_provided_fields_exist_for_each_image(entry: Name, fitted: Build) -> None:
    extractor = fitted(entry)
    fields = fields_of(extractor)
    assert fields.keys() == extractor.provides
    for values in fields.values():
        assert len(values) == len(KEYS)
        if isinstance(values, torch.Tensor):
            assert values.ndim == 4
            assert values.dtype in (torch.float32, torch.uint8)
            assert torch.isfinite(values.float()).all()
            continue
        assert any(len(value) for value in values), "nothing was found, so nothing was compared"
        if isinstance(values[0], np.ndarray):
            assert all(value.dtype == np.float32 and value.ndim == 2 for value in values)
        else:
            assert {type(value) for value in values} <= {str, Segments}


@every_extractor
def test_fields_do_not_depend_on_the_batch(entry: Name, fitted: Build) -> None:
    extractor = fitted(entry)
    together = fields_of(extractor)
    for index, key in enumerate(KEYS):
        assert row(fields_of(extractor, (key,)), 0) == row(together, index)


@every_extractor
def test_extracting_twice_gives_the_same_bytes(entry: Name, fitted: Build) -> None:
    extractor = fitted(entry)
    first, second = fields_of(extractor), fields_of(extractor)
    assert [row(first, index) for index in range(len(KEYS))] == [row(second, index) for index in range(len(KEYS))]


@every_extractor
def test_fields_of_rectangular_images_have_their_aspect_ratio(entry: Name, fresh: Build) -> None:
    extractor = fit(fresh(entry), width=WIDE)
    fields = extractor.extract(extract(KEYS, extractor.needs, WIDE))
    for name, values in fields.items():
        assert len(values) == len(KEYS)
        if isinstance(values, torch.Tensor):
            assert torch.isfinite(values.float()).all()
            rows, columns = values.shape[2:]
            if name.endswith("/labels"):
                assert (rows, columns) == (SIDE, WIDE)
            elif rows > 1 and class_of(entry).__name__ != "SamEncoder":
                assert abs(columns - rows * WIDE / SIDE) <= 1
        elif isinstance(values[0], Segments):
            assert any(len(value) for value in values)
            assert all(value.size[1] == value.size[0] * WIDE / SIDE for value in values if isinstance(value, Segments))
        else:
            assert any(len(value) for value in values)


@every_extractor
def test_only_declared_fields_are_read(entry: Name, fitted: Build) -> None:
    extractor = fitted(entry)
    more = extract(KEYS, {*extractor.needs, "other/level2", "other/text", "other/segments"})
    assert row(extractor.extract(more), 0) == row(fields_of(extractor), 0)


@every_extractor
def test_lineage_is_json(entry: Name, fitted: Build) -> None:
    lineage = fitted(entry).lineage()
    assert json.loads(json.dumps(lineage)) == lineage
    if "weights" in lineage:
        assert {"uri", "sha256"} <= lineage["weights"].keys()


@every_extractor
def test_restored_state_extracts_the_same(entry: Name, fresh: Build, fitted: Build) -> None:
    extractor = fitted(entry)
    if not isinstance(extractor, StatefulExtractor):
        assert not hasattr(extractor, "fit")
        return
    files = encode_state("extractors", entry[1], extractor.state())
    stored = State(load(files[f"extractors/{entry[1]}.safetensors"]), json.loads(files[f"extractors/{entry[1]}.json"]))
    restored = fresh(entry)
    assert isinstance(restored, StatefulExtractor)
    restored.restore(stored)
    assert row(fields_of(restored), 0) == row(fields_of(extractor), 0)
    assert encode_state("extractors", entry[1], restored.state()) == files


LEARNED = [entry for entry in COVERED if hasattr(class_of(entry), "fit")]


@pytest.mark.parametrize("entry", LEARNED, ids=["-".join(entry) for entry in LEARNED])
def test_fit_does_not_depend_on_order_and_batches(entry: Name, fresh: Build, fitted: Build) -> None:
    shuffled = tuple(np.random.default_rng(0).permutation(NORMAL_IMAGES).tolist())
    expected, found = fitted(entry), fit(fresh(entry), shuffled, batch=3)
    assert isinstance(expected, StatefulExtractor)
    assert isinstance(found, StatefulExtractor)
    assert encode_state("extractors", "x", found.state()) == encode_state("extractors", "x", expected.state())


@every_extractor
def test_unknown_option_is_one_line(entry: Name, options_of: Callable[[Name], dict[str, Any]]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(class_of(entry).config_model, {**options_of(entry), "no_such_option": 1}, where="here")
    assert str(caught.value).startswith("here: no_such_option: unknown key; allowed: ")
    assert "\n" not in str(caught.value)


def test_extractors_import_no_ray() -> None:
    paths = {PROFILES[profile].extractors[name].class_path.partition(":")[0] for profile, name in EVERY}
    code = f"import sys\nfor path in {sorted(paths)!r}:\n    __import__(path)\nsys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
