"""A few steps on a few trays; what a whole training reaches is measured by `benchmarks/caption_accuracy.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from uniad_ray.errors import ConfigError
from uniad_ray.perception.text.descriptions import CELLS
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.training.captioner.loop import CaptionerTrainingConfig, train_captioner
from uniad_ray.training.captioner.network import build_network, train_patches_as_linear
from uniad_ray.training.captioner.processing import SIDE, build_processor, question
from uniad_ray.training.captioner.trays import CLASSES, PROMPT, draw_tray

transformers = pytest.importorskip("transformers")


def test_answers_have_few_tokens_and_survive_the_tokenizer() -> None:
    tokenizer = build_processor().tokenizer
    for word in (*CLASSES, *CELLS):
        assert len(tokenizer(word)["input_ids"]) == 1
    for index in range(5):
        answer = draw_tray(0, index).answer
        tokens = tokenizer(answer)["input_ids"]
        assert tokenizer.decode(tokens) == answer
        assert len(tokens) < 50


def test_every_cell_of_a_tray_is_one_token() -> None:
    processor = build_processor()
    for side in (64, SIDE, 256):
        image = np.zeros((side, side, 3), np.uint8)
        request = processor(text=[question(processor)], images=[image], return_tensors="pt")
        tokens = request["input_ids"][0]
        assert (tokens == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() == len(CELLS)
    assert PROMPT in question(processor)


def test_linear_patches_equal_the_convolution() -> None:
    network = build_network(build_processor(), 0)
    embedding = network.model.visual.patch_embed
    patches = torch.randn(7, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    before = embedding(patches)
    train_patches_as_linear(network)
    torch.testing.assert_close(embedding(patches), before, rtol=1e-4, atol=1e-4)


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"file/model: cannot be created \(Not a directory\); name another folder"):
        train_captioner(tmp_path / "file" / "model", CaptionerTrainingConfig(trays=1, steps=1), said.append)
    assert said == []


def test_training_writes_a_folder_that_loads(tmp_path: Path) -> None:
    config = CaptionerTrainingConfig(trays=8, steps=60, batch=4, learning_rate=1e-2, processes=1)
    said: list[str] = []
    report = train_captioner(tmp_path, config, said.append)
    assert report.parameters < 2_000_000
    assert report.loss < 3.0  # a guess among 512 tokens costs 6.2
    assert said[0].startswith("8 trays drawn")
    assert resolve_folder(ModelFolderSource(uri=f"file:{tmp_path}")).sha256
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}
    network = transformers.Qwen2VLForConditionalGeneration.from_pretrained(tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    request = processor(text=[question(processor)], images=[draw_tray(0, 0).image], return_tensors="pt")
    written = network.generate(**request, max_new_tokens=4)
    assert written.shape[1] == request["input_ids"].shape[1] + 4
