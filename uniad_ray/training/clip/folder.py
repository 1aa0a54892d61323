"""Writes a tuned CLIP as a transformers folder that replaces the original one."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from uniad_ray.errors import WeightsError
from uniad_ray.perception.weights.sources import ResolvedWeights

RECORD_NAME: Final = "tuning.json"
"""File that records the training data and the results; transformers does not read it."""

_COPIED: Final = ("*.json", "*.txt", "*.model")
_INDEX: Final = "model.safetensors.index.json"


def write_clip_folder(
    folder: Path, base: ResolvedWeights, tuned: Mapping[str, np.ndarray], record: Mapping[str, Any]
) -> None:
    """Writes the folder atomically.

    Args:
        folder: The new folder; it must be missing or empty.
        base: The original CLIP; its configuration, tokenizer, image processor and all other parameters are kept.
        tuned: Tuned parameters by their names in CLIP, float32.
        record: JSON types; equal records and parameters have equal bytes.

    Raises:
        WeightsError: CLIP has no parameters of these names.
    """
    source = Path(str(base.path))
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(source.glob("model*.safetensors")):
        tensors |= load_file(path)
    misfit = [name for name, array in tuned.items() if name not in tensors or tensors[name].shape != array.shape]
    if misfit:
        raise WeightsError(f"{base.uri} uses other parameter names; it lacks {', '.join(misfit[:3])}")
    tensors |= {name: torch.from_numpy(np.array(array)) for name, array in tuned.items()}
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        for path in {path for pattern in _COPIED for path in source.glob(pattern)}:
            if path.name not in (_INDEX, RECORD_NAME):
                shutil.copyfile(path, partial / path.name)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / RECORD_NAME).write_text(json.dumps(record, sort_keys=True, indent=1) + "\n", "utf-8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a folder; None if it is not the folder of a tuned CLIP, or is corrupt."""
    try:
        record = json.loads((folder / RECORD_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
