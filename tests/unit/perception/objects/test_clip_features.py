from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_networks import CLIP_WIDTH, save_clip

from uniad_ray.errors import WeightsError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.objects.clip_features import ClipObjectFeatures, ClipObjectFeaturesConfig
from uniad_ray.perception.objects.crops import object_crops
from uniad_ray.perception.segments import MOST_SEGMENTS, Segments

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("clip")
    save_clip(found)
    return found


def features(folder: Path, **options: Any) -> ClipObjectFeatures:
    config = {"segments": "o/segments", "weights": {"uri": f"file:{folder}"}, **options}
    return ClipObjectFeatures("look", ClipObjectFeaturesConfig.model_validate(config), "cpu")


def squares(count: int) -> Segments:
    masks = np.zeros((count, 16, 16), dtype=bool)
    for number, mask in enumerate(masks):
        mask[number % 8 : number % 8 + 4, number % 5 : number % 5 + 4] = True
    return Segments.of(masks)


def vectors(found: ClipObjectFeatures, *segments: Segments) -> list[np.ndarray]:
    keys = [f"{number:032x}" for number in range(len(segments))]
    seen = Perception(keys, IMAGES[: len(segments)], segments={"o/segments": segments})
    return found.extract(seen)["look/vectors"]


def test_keeps_the_contract(folder: Path) -> None:
    found = features(folder)
    first, second = vectors(found, squares(3), squares(1))

    assert isinstance(found, Extractor)
    assert found.needs == {"o/segments"}
    assert found.provides == found.fields_of("look", found.config) == {"look/vectors"}
    assert (first.dtype, first.shape, second.shape) == (np.float32, (3, CLIP_WIDTH), (1, CLIP_WIDTH))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, rtol=1e-6)
    assert len(found.lineage()["weights"]["sha256"]) == 64


def test_vectors_match_clip_image_features(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    config = CLIPConfig.from_pretrained(folder)
    config.text_config.max_position_embeddings = 20
    (crops,) = object_crops(IMAGES[0], squares(3), size=8, padding=0.5, batch=3)
    pixels = CLIPImageProcessor.from_pretrained(folder)(images=list(crops), return_tensors="pt")
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(folder, config=config).get_image_features(**pixels).pooler_output

    (computed,) = vectors(features(folder, padding=0.5), squares(3))

    np.testing.assert_allclose(computed, torch.nn.functional.normalize(expected, dim=1).numpy(), atol=1e-6)


def test_background_does_not_matter(folder: Path) -> None:
    (before,) = vectors(features(folder), squares(1))
    changed = np.where(squares(1).masks()[0][..., None], IMAGES[0], 255).astype(np.uint8)
    seen = Perception(["a"], changed[None], segments={"o/segments": [squares(1)]})

    np.testing.assert_array_equal(features(folder).extract(seen)["look/vectors"][0], before)


def test_vectors_do_not_depend_on_the_batch(folder: Path) -> None:
    found = features(folder)
    together = vectors(found, squares(5), squares(2), squares(3))

    np.testing.assert_array_equal(vectors(found, squares(5))[0], together[0])


def test_no_tiny_full_and_many_objects(folder: Path) -> None:
    whole, pixel = np.ones((1, 16, 16), dtype=bool), np.zeros((1, 16, 16), dtype=bool)
    pixel[0, 15, 3] = True
    found = features(folder, crops_per_batch=100)

    shapes = [each.shape for each in vectors(found, squares(0), Segments.of(whole), Segments.of(pixel))]
    (many,) = vectors(found, squares(600))

    assert shapes == [(0, CLIP_WIDTH), (1, CLIP_WIDTH), (1, CLIP_WIDTH)]
    assert many.shape == (MOST_SEGMENTS, CLIP_WIDTH)
    assert np.isfinite(many).all()


def test_equal_sources_share_one_network(folder: Path) -> None:
    assert features(folder)._network is features(folder, padding=0.3)._network


def test_folder_without_image_processor_is_rejected(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.name != "preprocessor_config.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())

    with pytest.raises(WeightsError, match="ClipObjectFeatures cannot load"):
        features(tmp_path)
