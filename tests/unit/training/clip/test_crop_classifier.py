from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tuning import SIDE, TEXTS, coloured_crop, tiny_classifier

from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.objects.clip_features import ClipObjectFeatures, ClipObjectFeaturesConfig
from uniad_ray.perception.objects.crops import object_crops
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.encoders import ClipTextEncoder, PretrainedEncoderConfig
from uniad_ray.perception.weights.model_folders import ModelFolderSource
from uniad_ray.training.clip.crop_classifier import CropClassifier, class_logits, class_loss

pytest.importorskip("transformers", reason="the networks of transformers are an extra")


def test_loss_is_cross_entropy_of_scaled_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors, texts = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    classes, scale = np.array([0, 2, 1, 1, 0]), 14.3

    total = 0.0
    for vector, label in zip(vectors, classes, strict=True):
        scores = [scale * float(vector @ text) / math.sqrt(float(vector @ vector)) for text in texts]
        total -= scores[label] - math.log(sum(math.exp(score) for score in scores))

    logits = class_logits(torch.from_numpy(vectors), torch.from_numpy(texts), scale)
    assert logits.shape == (5, 3)
    assert float(class_loss(logits, torch.from_numpy(classes))) == pytest.approx(total / 5, rel=1e-12)


def test_vectors_match_the_object_namer(clip: Path) -> None:
    source = ModelFolderSource(uri=f"file:{clip}")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, size=(40, 40, 3), dtype=np.uint8)
    masks = np.zeros((12, 40, 40), dtype=bool)
    for number, mask in enumerate(masks):
        row, column = divmod(number, 4)
        mask[12 * row : 12 * row + 7 + row, 10 * column : 10 * column + 5] = True
    segments = Segments.of(masks)
    looks = ClipObjectFeatures("look", ClipObjectFeaturesConfig(segments="o/segments", weights=source), "cpu")
    perception = Perception(["0" * 32], image[None], segments={"o/segments": [segments]})
    perception = perception.extended(looks.extract(perception))
    vectors = perception.vectors["look/vectors"][0]
    encoder = ClipTextEncoder("text", PretrainedEncoderConfig(weights=source), "cpu")

    classifier = tiny_classifier(clip)
    (crops,) = object_crops(image, segments, size=classifier.side, padding=0.1, batch=64)
    with torch.no_grad():
        logits = classifier(classifier.pixels(list(crops))).numpy()
    np.testing.assert_allclose(logits, math.exp(2.6592) * vectors @ encoder.encode(TEXTS).T, rtol=1e-5)


def test_scale_is_read_from_the_folder(clip: Path) -> None:
    classifier = tiny_classifier(clip)
    pixels = classifier.pixels([coloured_crop("red", 0)])
    assert pixels.shape == (1, 3, SIDE, SIDE)
    assert float(classifier(pixels).abs().max()) <= math.exp(2.6592) + 1e-3
    vector = torch.nn.functional.normalize(classifier.network(pixels).image_embeds, dim=1)
    config = PretrainedEncoderConfig(weights=ModelFolderSource(uri=f"file:{clip}"))
    text = torch.from_numpy(ClipTextEncoder("text", config, "cpu").encode(TEXTS)[0])
    assert float(classifier(pixels)[0, 0]) == pytest.approx(math.exp(2.6592) * float(vector[0] @ text), rel=1e-5)


def test_only_the_end_of_image_tower_is_trained(clip: Path) -> None:
    def trained(blocks: int) -> set[str]:
        classifier = tiny_classifier(clip)
        classifier.thaw(blocks)
        return {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}

    ends = {f"network.vision_model.post_layernorm.{part}" for part in ("weight", "bias")}
    assert trained(0) == {*ends, "network.visual_projection.weight"}
    assert trained(1) - trained(0)
    assert all(name.startswith("network.vision_model.encoder.layers.0.") for name in trained(1) - trained(0))
    with pytest.raises(ConfigError, match=r"tuning.blocks is 2; the image tower of file:.* has 1"):
        trained(2)


def test_classifiers_do_not_share_networks(clip: Path) -> None:
    one, other = tiny_classifier(clip), tiny_classifier(clip)
    with torch.no_grad():
        one.network.visual_projection.weight.zero_()
    assert bool(other.network.visual_projection.weight.any())


def test_incomplete_clip_is_refused(clip: Path, tmp_path: Path) -> None:
    for path in clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(clip / "model.safetensors")
    del tensors["logit_scale"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="has no logit_scale; tune a whole CLIP"):
        tiny_classifier(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match=r"cannot load file:"):
        CropClassifier("namer", ModelFolderSource(uri=f"file:{tmp_path}"), TEXTS, "cpu")
