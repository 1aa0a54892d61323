from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from support.tiny_networks import CLIP_WIDTH, save_clip

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.objects.clip_namer import ClipNamer, ClipNamerConfig
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.encoders import ClipTextEncoder, PretrainedEncoderConfig
from uniad_ray.perception.weights.model_folders import ModelFolderSource

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

CLASSES = ("bolt", "nut", "tray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("clip")
    save_clip(found)
    return found


def config(folder: Path, **options: Any) -> ClipNamerConfig:
    defaults = {"segments": "o/segments", "vectors": "look/vectors", "weights": {"uri": f"file:{folder}"}}
    return ClipNamerConfig.model_validate({**defaults, "classes": CLASSES, **options})


def namer(folder: Path, **options: Any) -> ClipNamer:
    return ClipNamer("objects", config(folder, **options), "cpu")


def perception(*vectors: np.ndarray) -> Perception:
    segments = []
    for each in vectors:
        masks = np.zeros((len(each), 4, 40), dtype=bool)
        for number, mask in enumerate(masks):
            mask[:, number] = True
        segments.append(Segments.of(masks))
    images = np.zeros((len(vectors), 4, 40, 3), dtype=np.uint8)
    keys = [f"{number:032x}" for number in range(len(vectors))]
    return Perception(keys, images, segments={"o/segments": segments}, vectors={"look/vectors": vectors})


def names(found: ClipNamer, *vectors: np.ndarray) -> list[tuple[str, ...]]:
    return [segments.names for segments in found.extract(perception(*vectors))["objects/segments"]]


def text_vectors(folder: Path, *texts: str) -> np.ndarray:
    options = PretrainedEncoderConfig(weights=ModelFolderSource(uri=f"file:{folder}"))
    return ClipTextEncoder("text", options, "cpu").encode(texts)


def test_segment_gets_the_most_similar_class(folder: Path) -> None:
    draws = np.random.default_rng(0).normal(size=(30, CLIP_WIDTH)).astype(np.float32)
    texts = text_vectors(folder, *(f"a {name}" for name in CLASSES))
    expected = []
    for vector in draws:
        cosines = [float(vector @ text) / np.linalg.norm(vector) for text in texts]
        expected.append(CLASSES[cosines.index(max(cosines))])

    found = namer(folder, prompt="a {}")

    assert isinstance(found, Extractor)
    assert names(found, draws[:10], draws[10:]) == [tuple(expected[:10]), tuple(expected[10:])]
    assert len(set(expected)) == 3


def test_the_prompt_stands_around_the_class(folder: Path) -> None:
    like = text_vectors(folder, "a photo of a nut.", "a photo of a tray.")

    assert names(namer(folder), like) == [("nut", "tray")]


def test_the_user_may_give_better_names(folder: Path) -> None:
    like = text_vectors(folder, "a photo of a nut.", "a photo of a tray.")

    assert names(namer(folder, names={"nut": "M3"}), like) == [("M3", "tray")]


def test_an_image_without_objects_has_no_names(folder: Path) -> None:
    assert names(namer(folder), np.zeros((0, CLIP_WIDTH), dtype=np.float32)) == [()]


def test_vectors_of_another_network_are_rejected(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"look/vectors has 9 dimensions and the class texts have 6; use the same weights"
    ):
        names(namer(folder), np.ones((1, 9), dtype=np.float32))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": ["bolt", ""]}, "is not a class name"),
        ({"classes": ["bolt", "bolt"]}, "two classes have the same name, rename one: bolt, bolt"),
        ({"names": {"bolt": "nut"}}, "two classes have the same name, rename one: nut, nut, tray"),
        ({"names": {"bolt": "a;b"}}, "is not a class name"),
        ({"names": {"screw": "M3"}}, "names has unknown classes screw; choose from bolt, nut, tray"),
        ({"prompt": "a photo"}, "should match pattern"),
        ({"prompt": "{0} {}"}, "should match pattern"),
    ],
)
def test_classes_names_and_prompt_must_be_usable(options: dict[str, Any], says: str, folder: Path) -> None:
    with pytest.raises(ValidationError, match=says):
        config(folder, **options)


def test_namer_needs_classes(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"list them in extractors.objects.config.classes"):
        namer(folder, classes=[])


def test_tuning_is_not_in_the_lineage(folder: Path) -> None:
    assert namer(folder, tuning={"epochs": 3}).lineage() == namer(folder).lineage()


def test_the_lineage_names_classes_and_weights(folder: Path) -> None:
    lineage = namer(folder).lineage()

    assert lineage["classes"] == list(CLASSES)
    assert (lineage["weights"]["trained"], len(lineage["weights"]["sha256"])) == (True, 64)
