"""The demonstration model in plain transformers; `tests/benchmarks/test_caption_accuracy.py` runs it in vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from uniad_ray.archive.scenes import SceneConfig, SceneRules, draw_scene, render
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.training.captioner.processing import question
from uniad_ray.training.captioner.trays import true_answer

transformers = pytest.importorskip("transformers")
UNSEEN = SceneConfig(seed=30_000)


@pytest.mark.parametrize("side", [96, 256, 400])
def test_model_captions_unseen_trays_of_any_size(side: int) -> None:
    folder = Path(resolve_folder(ModelFolderSource(uri="builtin:tray-captioner")).path)
    network = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    scenes = [draw_scene(UNSEEN, "test", "logical_anomalies", index) for index in range(6)]
    images = [Image.fromarray(render(scene, SceneRules(), side).image) for scene in scenes]
    request = processor(text=[question(processor)] * len(images), images=images, return_tensors="pt")
    written = network.generate(**request, max_new_tokens=80)[:, request["input_ids"].shape[1] :]
    answers = processor.tokenizer.batch_decode(written, skip_special_tokens=True)
    right = [answer == json.dumps(true_answer(scene.parts)) for answer, scene in zip(answers, scenes, strict=True)]
    assert sum(right) >= 5
