"""State dicts: read from weight files without running code, and loaded strictly into timm networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import safetensors.torch
import torch

from uniad_ray.errors import WeightsError
from uniad_ray.perception.timm_library import resample_abs_pos_embed
from uniad_ray.perception.weights.key_mappings import KeyMapping, to_timm
from uniad_ray.perception.weights.onnx_parameters import read_onnx
from uniad_ray.perception.weights.sources import WEIGHT_SUFFIXES, ResolvedWeights, first_line

_WRAPPER_KEYS: Final = ("state_dict", "model")


def load_state_dict(resolved: ResolvedWeights) -> dict[str, torch.Tensor]:
    """Reads the tensors of a weight file to the CPU, without executing code from the file.

    Args:
        resolved: A source with a file: `.safetensors`; `.onnx`, see `read_onnx`; or a `.pth`, `.pt` or `.bin` file
            with a mapping of tensors, at the top or under `state_dict` or `model`.

    Returns:
        Tensors by parameter name, in the file's dtypes.

    Raises:
        WeightsError: The weights are random, the suffix is unknown, or the file holds anything but tensors.
    """
    path = resolved.path
    if path is None:
        raise WeightsError(f"{resolved.uri} has no file to load; random weights come from the network itself")
    suffix = path.suffix.lower()
    if suffix not in WEIGHT_SUFFIXES:
        raise WeightsError(f"{path} does not end in {', '.join(sorted(WEIGHT_SUFFIXES))}; convert it to safetensors")
    content: Any
    try:
        if suffix == ".safetensors":
            content = safetensors.torch.load_file(path, device="cpu")
        elif suffix == ".onnx":
            content = read_onnx(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The readers raise many types for a corrupt or rejected file, and their messages span several lines.
        raise WeightsError(
            f"cannot read {path} as weights: {first_line(error)}; replace the file, or convert it to safetensors"
        ) from error
    for key in _WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path} is not a plain mapping of tensors; save only the network's state_dict")
    return dict(content)


def load_into(network: Any, resolved: ResolvedWeights, key_mapping: KeyMapping = "timm") -> None:
    """Loads all parameters of a timm network from a weight file, in place.

    Classifier weights in the file are ignored. Position embeddings of a vision transformer may differ in size; they are
    resampled to the network's grid. Everything else must match.

    Args:
        network: A timm network without its classifier.
        resolved: A source with a file.
        key_mapping: Naming of the parameters in the file.

    Raises:
        WeightsError: As for `load_state_dict`; or parameters are missing, unexpected or of another shape.
    """
    state = to_timm(load_state_dict(resolved), network, key_mapping)
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    state = {key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}
    expected = network.state_dict()
    if "pos_embed" in state and "pos_embed" in expected:
        state["pos_embed"] = _resampled(state["pos_embed"], network)
    # Old checkpoints lack these counters; inference does not read them.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    misshapen = [key for key in state if key in expected and state[key].shape != expected[key].shape]
    faults = [
        f"{len(keys)} {word} ({', '.join(map(_printable, keys[:3]))}{', ...' if len(keys) > 3 else ''})"
        for word, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if keys
    ]
    if faults:
        raise WeightsError(
            f"{resolved.uri} does not fit the network: {'; '.join(faults)}; check architecture and key_mapping"
        )
    network.load_state_dict(state, strict=False)


def _resampled(positions: torch.Tensor, network: Any) -> torch.Tensor:
    """Position embeddings at the network's grid; unchanged if they are at it, or not those of a square grid."""
    prefix = 0 if getattr(network, "no_embed_class", False) else network.num_prefix_tokens
    _, count, width = network.pos_embed.shape
    if positions.ndim != 3 or positions.shape[::2] != (1, width) or positions.shape[1] == count:
        return positions
    patches = positions.shape[1] - prefix
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        return positions
    grid = list(network.patch_embed.grid_size)
    resampled: torch.Tensor = resample_abs_pos_embed(positions.float(), new_size=grid, num_prefix_tokens=prefix)
    return resampled


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
