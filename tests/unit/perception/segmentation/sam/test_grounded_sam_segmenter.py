from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tiny_networks import SAM_SIDE, save_grounding_dino, save_sam

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.segmentation.sam.grounded_sam_segmenter import (
    GroundedSamSegmenter,
    GroundedSamSegmenterConfig,
)
from uniad_ray.perception.segmentation.sam.grounding_dino import Detections, GroundingDino
from uniad_ray.perception.segmentation.sam.sam_encoder import SamEncoder, SamEncoderConfig

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

CLASSES = ("red pin", "bolt", "nut")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    sam, detector = tmp_path_factory.mktemp("sam"), tmp_path_factory.mktemp("detector")
    save_sam(sam)
    save_grounding_dino(detector)
    return sam, detector


def config(folders: tuple[Path, Path], **options: Any) -> GroundedSamSegmenterConfig:
    sam, detector = ({"uri": f"file:{folder}"} for folder in folders)
    defaults = {"embedding": "sam_encoder/embedding", "sam_weights": sam, "weights": detector, "side": 40}
    # With random parameters, all scores are low and all boxes are small.
    return GroundedSamSegmenterConfig.model_validate(
        {**defaults, "classes": CLASSES, "least_score": 0.0, "box_overlap": 1.0, **options}
    )


def segmenter(folders: tuple[Path, Path], **options: Any) -> GroundedSamSegmenter:
    return GroundedSamSegmenter("grounded_sam", config(folders, **options), "cpu")


def perception(folders: tuple[Path, Path], images: np.ndarray = IMAGES) -> Perception:
    weights = {"weights": {"uri": f"file:{folders[0]}"}}
    encoder = SamEncoder("sam_encoder", SamEncoderConfig.model_validate(weights), "cpu")
    seen = Perception([f"{number:032x}" for number in range(len(images))], images)
    return seen.extended(encoder.extract(seen))


def detects(monkeypatch: pytest.MonkeyPatch, boxes: list[list[float]], classes: list[int]) -> None:
    """A fake detector with chosen boxes; random parameters give arbitrary ones."""
    scores = torch.linspace(0.9, 0.5, len(boxes))
    found = Detections(torch.tensor(boxes).reshape(-1, 4), scores, torch.tensor(classes, dtype=torch.int64))
    monkeypatch.setattr(GroundingDino, "detect", lambda *_: found)


def test_keeps_the_contract_and_names_every_segment(folders: tuple[Path, Path]) -> None:
    found = segmenter(folders)
    segments = found.extract(perception(folders))["grounded_sam/segments"]

    assert isinstance(found, Extractor)
    assert [each.size for each in segments] == [(40, 40)] * 2
    for each in segments:
        assert len(each.names) == len(each) > 0
        assert set(each.names) <= set(CLASSES)
    lineage = found.lineage()
    assert lineage["classes"] == list(CLASSES)
    assert len({lineage["weights"]["sha256"], lineage["sam_weights"]["sha256"]}) == 2


def test_segments_do_not_depend_on_the_batch(folders: tuple[Path, Path]) -> None:
    found = segmenter(folders, boxes_per_batch=7)
    together = found.extract(perception(folders))["grounded_sam/segments"][1]
    (alone,) = found.extract(perception(folders, IMAGES[1:]))["grounded_sam/segments"]

    assert alone.names == together.names
    for name, array in alone.arrays().items():
        np.testing.assert_array_equal(array, together.arrays()[name])


def test_masks_names_and_confidences_match_boxes(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    detects(monkeypatch, [[0.0, 0.5, 0.25, 1.0], [0.5, 0.0, 1.0, 1.0]], [2, 0])
    found = segmenter(folders)
    seen = perception(folders, IMAGES[:1, :20])
    network = found._sam.network
    with torch.inference_mode():
        expected = network(
            image_embeddings=seen.fields["sam_encoder/embedding"],
            input_boxes=torch.tensor([[[0.0, 8.0, 8.0, 16.0], [16.0, 0.0, 32.0, 16.0]]]),
            multimask_output=False,
        ).pred_masks
    # The image is half as high as wide, so it fills only half of the network's 32 rows.
    upper = torch.nn.functional.interpolate(expected[0], (SAM_SIDE, SAM_SIDE), mode="bilinear")[..., :16, :]
    masks = torch.nn.functional.interpolate(upper, (20, 40), mode="bilinear")[:, 0] > 0

    (segments,) = found.extract(seen)["grounded_sam/segments"]

    for name, confidence, mask in zip(["nut", "red pin"], [0.9, 0.5], masks, strict=True):
        place = segments.names.index(name)
        assert segments.confidences[place] == pytest.approx(confidence)
        np.testing.assert_array_equal(segments.masks()[place], mask.numpy())


@pytest.mark.parametrize("count", [0, 1, 500])
def test_no_full_image_and_many_objects(
    count: int, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    detects(monkeypatch, [[0.0, 0.0, 1.0, 1.0]] * count, [1] * count)

    (segments,) = segmenter(folders).extract(perception(folders, IMAGES[:1]))["grounded_sam/segments"]

    assert len(segments) == count
    assert segments.names == ("bolt",) * len(segments)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["bolt", ""], "is not a class name"),
        (["bolt", "  "], "is not a class name"),
        (["bolt", "Bolt "], "two classes have the same name, rename one: bolt, bolt"),
        (["M3. bolt"], "has a full stop"),
        (["a:b"], "is not a class name"),
    ],
)
def test_classes_must_be_usable_and_distinct(classes: list[str], says: str, folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValidationError, match=says):
        config(folders, classes=classes)


def test_without_classes_nothing_is_loaded(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"list them in extractors\.grounded_sam\.config\.classes"):
        segmenter(folders, classes=[], weights={"uri": "file:/no/such/folder"})
