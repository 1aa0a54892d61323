"""End-to-end test of the object experts of the profile `paper`, on tiny networks of the same architectures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_networks import save_clip, save_grounding_dino, save_sam

from uniad_ray.config.loading import load_config
from uniad_ray.perception.segmentation.sam.grounding_dino import GroundingDino
from uniad_ray.perception.segmentation.sam.sam_encoder import Sam
from uniad_ray.perception.text.descriptions import Description
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

pytest.importorskip("transformers", reason="the networks of transformers are an extra")

TINY = [
    "expert_sets.tmuad=[text_memory, object]",
    "fusions.tmuad.weights={{object: 1.0}}",
    "expert_set=tmuad",
    "extractors.sam_encoder.config.weights.uri=file:{sam}",
    "extractors.sam.config.weights.uri=file:{sam}",
    "extractors.grounded_sam.config.sam_weights.uri=file:{sam}",
    "extractors.grounded_sam.config.weights.uri=file:{detector}",
    "extractors.object_features.config.weights.uri=file:{clip}",
    # Random networks give low confidence and stability.
    "extractors.sam.config.predicted_iou=0.01",
    "extractors.sam.config.stability=0.0",
    "extractors.sam.config.box_overlap=1.0",
    "extractors.sam.config.points_per_side=2",
]
GROUNDED_SAM = [
    "extractors.grounded_sam.config.classes=[red pin, bolt]",
    "extractors.grounded_sam.config.least_score=0.0",
    "extractors.object_description.config.segments=grounded_sam/segments",
    "experts.text_memory.config.segments=grounded_sam/segments",
]
CLIP_NAMES = [
    "extractors.objects.class=uniad_ray.perception.objects.clip_namer:ClipNamer",
    "extractors.objects.config.vectors=object_features/vectors",
    "extractors.objects.config.classes=[bolt, nut]",
    "extractors.objects.config.weights.uri=file:{clip}",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("sam", "clip", "detector")}
    save_sam(found["sam"])
    save_clip(found["clip"])
    save_grounding_dino(found["detector"])
    return found


@pytest.mark.parametrize("choice", [[], GROUNDED_SAM, CLIP_NAMES], ids=["kinds", "grounded_sam", "clip"])
def test_object_side_scores_with_one_pass_per_network(
    choice: list[str], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("paper", [override.format(**folders) for override in [*TINY, *choice]])
    experts = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    keys = [f"{number:032x}" for number in range(3)]
    for namer in pipeline.stateful:
        seen_by_namer = pipeline.extract(keys, images, namer.needs)
        namer.fit(lambda seen=seen_by_namer: [seen])  # type: ignore[attr-defined]
    passes: list[str] = []
    for owner, method in ((Sam, "embedding"), (GroundingDino, "detect")):
        monkeypatch.setattr(owner, method, _counted(getattr(owner, method), passes, owner.__name__))

    wanted = frozenset().union(*(expert.needs for expert in experts.values()))
    perception = pipeline.extract(keys, images, wanted)

    assert Counter(passes) == Counter({"Sam": 3, "GroundingDino": 3 if choice is GROUNDED_SAM else 0})
    for text in perception.texts["object_description/text"]:
        assert str(Description.parse(text)) == text
    for expert in experts.values():
        expert.fit(lambda: [perception])
        evidence = expert.score(perception)
        assert evidence.scores.shape == (3,)
        np.testing.assert_allclose(evidence.scores, 0.0, atol=1e-5)
    strange = pipeline.extract(["f" * 32], 255 - images[:1], wanted)
    assert experts["object"].score(strange).scores[0] > 0


def _counted(method: Any, passes: list[str], name: str) -> Any:
    def counted(*arguments: Any) -> Any:
        passes.append(name)
        return method(*arguments)

    return counted
