from __future__ import annotations

import pytest
import torch
from support.dinov2 import GRID, PATCH, random_network, timm_network

from uniad_ray.perception.weights.key_mappings import rename_dinov2, to_timm

TOKEN = torch.zeros(1, 1, 4)


class TestRenameDinov2:
    @pytest.mark.parametrize("part", ["whole", "backbone"])
    def test_same_tokens_in_timm(self, part: str) -> None:
        network = random_network()
        renamed = rename_dinov2((network if part == "whole" else network.backbone).state_dict())
        ours = timm_network()
        ours.load_state_dict(renamed, strict=True)
        images = torch.rand(2, 3, GRID * PATCH, GRID * PATCH, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours.forward_features(images), network.backbone(images), rtol=1e-4, atol=1e-5)

    def test_query_key_and_value_are_joined_in_this_order(self) -> None:
        layer = "embedder.encoder.layer.10.attention.attention"
        state = {"embedder.embeddings.cls_token": TOKEN} | {
            f"{layer}.{part}.bias": torch.full((2,), float(number))
            for number, part in enumerate(("value", "query", "key"))
        }
        renamed = rename_dinov2(state)
        assert renamed.keys() == {"cls_token", "blocks.10.attn.qkv.bias"}
        assert renamed["blocks.10.attn.qkv.bias"].tolist() == [1, 1, 2, 2, 0, 0]

    def test_an_incomplete_projection_is_not_joined(self) -> None:
        names = [f"encoder.layer.0.attention.attention.{part}.bias" for part in ("query", "key")]
        renamed = rename_dinov2({"embeddings.cls_token": TOKEN} | dict.fromkeys(names, torch.zeros(2)))
        assert renamed.keys() == {"cls_token"} | {name.replace("encoder.layer", "blocks") for name in names}

    def test_projections_of_different_shapes_are_not_joined(self) -> None:
        names = [f"encoder.layer.0.attention.attention.{part}.weight" for part in ("query", "key", "value")]
        tensors = [torch.zeros(2, 2), torch.zeros(2, 3), torch.zeros(2, 2)]
        renamed = rename_dinov2({"embeddings.cls_token": TOKEN} | dict(zip(names, tensors, strict=True)))
        assert "blocks.0.attn.qkv.weight" not in renamed
        assert len(renamed) == 4

    def test_unknown_names_are_kept(self) -> None:
        renamed = rename_dinov2({"embeddings.cls_token": TOKEN, "stranger": TOKEN, "encoder.layer.x.norm1": TOKEN})
        assert renamed.keys() == {"cls_token", "stranger", "encoder.layer.x.norm1"}

    @pytest.mark.parametrize("tokens", [[], ["a.embeddings.cls_token", "b.embeddings.cls_token"]])
    def test_all_names_are_kept_without_a_single_class_token(self, tokens: list[str]) -> None:
        state = dict.fromkeys([*tokens, "layernorm.weight"], TOKEN)
        assert rename_dinov2(state).keys() == state.keys()


def test_timm_names_are_kept() -> None:
    state = {"embeddings.cls_token": TOKEN, "_conv_stem.weight": TOKEN}
    assert to_timm(state, timm_network(), "timm") == state
