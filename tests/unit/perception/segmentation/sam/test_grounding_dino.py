from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_networks import save_grounding_dino

from uniad_ray.errors import ConfigError
from uniad_ray.perception.segmentation.sam.grounding_dino import GroundingDino, load_grounding_dino
from uniad_ray.perception.weights.sources import ResolvedWeights

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

CLASSES = ("red pin", "bolt", "nut")
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("detector")
    save_grounding_dino(found)
    return found


def detector(folder: Path, classes: tuple[str, ...] = CLASSES) -> GroundingDino:
    weights = ResolvedWeights(folder, "0" * 64, f"file:{folder}")
    return GroundingDino(*load_grounding_dino(weights, CPU), classes, CPU)


def test_detections_match_transformers(
    folder: Path,
) -> None:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    network = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=IMAGE, text=[list(CLASSES)], return_tensors="pt")
    with torch.inference_mode():
        outputs = network(**inputs)
    library = processor.post_process_grounded_object_detection(outputs, threshold=-1.0, target_sizes=[(1, 1)])[0]
    # [CLS] red pin . bolt . nut . [SEP]
    class_of_word = torch.tensor([0, 0, 1, 2])
    by_word = outputs.logits[0].sigmoid()[:, [1, 2, 4, 6]]
    scores, word = by_word.max(dim=1)
    order = scores.argsort(descending=True, stable=True)

    found = detector(folder).detect(IMAGE, 0.0, 1.0, 100)

    torch.testing.assert_close(found.boxes, library["boxes"][order].clamp(0, 1))
    torch.testing.assert_close(found.scores, scores[order])
    assert found.classes.tolist() == class_of_word[word[order]].tolist()
    assert len(set(found.classes.tolist())) > 1


def test_boxes_are_filtered_by_score_and_overlap(
    folder: Path,
) -> None:
    found = detector(folder)
    every = found.detect(IMAGE, 0.0, 1.0, 100)
    middle = float(every.scores.median())
    sure = found.detect(IMAGE, middle, 1.0, 100)
    apart = found.detect(IMAGE, 0.0, 0.0, 100)

    assert sure.scores.tolist() == [score for score in every.scores.tolist() if score > middle]
    assert found.detect(IMAGE, 0.0, 1.0, 3).scores.tolist() == every.scores[:3].tolist()
    assert apart.scores[0] == every.scores[0]
    assert len(apart.boxes) < len(every.boxes)
    for row, one in enumerate(apart.boxes):
        for other in apart.boxes[row + 1 :]:
            assert bool((torch.minimum(one[2:], other[2:]) <= torch.maximum(one[:2], other[:2])).any())


def test_too_many_classes_are_rejected(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"the 20 classes have 62 tokens, but Grounding DINO reads at most 32"):
        detector(folder, tuple(f"bolt {number}" for number in range(20)))


def test_class_without_tokens_is_rejected(folder: Path) -> None:
    with pytest.raises(ConfigError, match="reads only 1 of 2 classes in"):
        detector(folder, ("bolt", "\u200b"))
