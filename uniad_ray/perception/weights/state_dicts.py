"""State dicts: read from weight files without running code, and loaded strictly into timm networks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from uniad_ray.errors import WeightsError
from uniad_ray.perception.timm_library import timm
from uniad_ray.perception.weights.key_mappings import KeyMapping, to_timm
from uniad_ray.perception.weights.onnx_parameters import read_onnx
from uniad_ray.perception.weights.sources import WEIGHT_SUFFIXES, ResolvedWeights, first_line


def load_state_dict(resolved: ResolvedWeights) -> dict[str, torch.Tensor]:
    """Reads the tensors of a weight file to the CPU, without executing code from the file.

    Args:
        resolved: A source with a file: `.onnx`, see `read_onnx`; or any other that timm's loader reads without running
            code: `.safetensors`, or a `.pth`, `.pt` or `.bin` file with a mapping of tensors, at the top or under
            `state_dict` or `model`. Averaged parameters (`state_dict_ema`, `model_ema`) come first.

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
        if suffix == ".onnx":
            content = read_onnx(path)
        else:
            content = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except AttributeError:
        content = None  # timm takes it for a mapping
    except Exception as error:
        # The readers raise many types for a corrupt or rejected file, and their messages span several lines.
        raise WeightsError(
            f"cannot read {path} as weights: {first_line(error)}; replace the file, or convert it to safetensors"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path} is not a plain mapping of tensors; save only the network's state_dict")
    return dict(content)


def load_into(network: Any, resolved: ResolvedWeights, key_mapping: KeyMapping = "timm") -> None:
    """Loads all parameters of a timm network from a weight file, in place.

    timm's own filter for the architecture first converts what the file has: the names of other libraries, such as those
    of a whole CLIP, and position embeddings of another size. Classifier weights in the file are ignored. All else must
    match.

    Args:
        network: A timm network without its classifier.
        resolved: A source with a file.
        key_mapping: Naming of the parameters in the file.

    Raises:
        WeightsError: As for `load_state_dict`; or parameters are missing, unexpected or of another shape.
    """
    state = _filtered(to_timm(load_state_dict(resolved), network, key_mapping), network)
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    state = {key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}
    expected = network.state_dict()
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


def _filtered(state: Mapping[str, torch.Tensor], network: Any) -> dict[str, torch.Tensor]:
    """The parameters after timm's filter for the architecture, if it has one."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    try:
        return dict(convert(dict(state), network))
    except (
        RuntimeError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        ZeroDivisionError,
    ):
        # A file that is not for this network makes a filter fail anywhere; the comparison of names and shapes says how.
        return dict(state)


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
