"""The demonstration captioner: Qwen2-VL's architecture with a few layers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional

from uniad_ray.training.captioner.processing import END, IMAGE, PADDING, PATCH, VIDEO, VISION_END, VISION_START

_WIDTH: Final = 128
_HEADS: Final = 4
_TEXT_LAYERS: Final = 3
_VISION_LAYERS: Final = 2
_GAIN: Final = 2.5
"""Factor of the initial weights; those of large models are too small for narrow layers to start learning."""


def build_network(processor: Any, seed: int) -> Any:
    """Builds the network with random parameters: a `Qwen2VLForConditionalGeneration` in float32."""
    library = importlib.import_module("transformers")
    tokenizer = processor.tokenizer
    ids: Mapping[str, int] = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    # Rotary sections of time, height and width.
    half = _WIDTH // _HEADS // 2
    section = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    text = {
        "model_type": "qwen2_vl_text",
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "hidden_size": _WIDTH,
        "intermediate_size": 3 * _WIDTH,
        "num_hidden_layers": _TEXT_LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section},
        "tie_word_embeddings": True,
        "bos_token_id": ids[PADDING],
        "eos_token_id": ids[END],
        "pad_token_id": ids[PADDING],
    }
    vision = {
        "depth": _VISION_LAYERS,
        "embed_dim": _WIDTH,
        "hidden_size": _WIDTH,
        "num_heads": _HEADS,
        "mlp_ratio": 4,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
    }
    config = library.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    network = library.Qwen2VLForConditionalGeneration(config).float()
    network.generation_config = library.GenerationConfig(
        eos_token_id=[ids[END], ids[PADDING]], pad_token_id=ids[PADDING], do_sample=False
    )
    for name, parameter in network.named_parameters():
        if parameter.dim() >= 2 and "embed_tokens" not in name:
            parameter.data.mul_(_GAIN)
    return network


def train_patches_as_linear(network: Any) -> None:
    """Replaces the forward pass of the patch embedding by the same linear map, whose gradient is faster on a CPU."""
    embedding = network.model.visual.patch_embed

    def forward(patches: torch.Tensor) -> torch.Tensor:
        weight = embedding.proj.weight
        return functional.linear(patches.flatten(1), weight.flatten(1))

    embedding.forward = forward


def save_model(network: Any, processor: Any, folder: Path) -> None:
    """Writes configuration, parameters in safetensors, tokenizer, processor and chat template to a folder."""
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
