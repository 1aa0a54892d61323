"""Perceptions of the normal images of a fit on disk: their precision, and a bound on the space that they take."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from uniad_ray.config.spill import SpillConfig
from uniad_ray.errors import FitError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.segments import Segments

_logger = logging.getLogger(__name__)

_IMAGE = "images"
# Separator that no field name contains.
_PART = "#"
_LACKS = "lacks"
_GIB = 1 << 30


@dataclass
class SpillOptions:
    """What all shelves of a fit share.

    Attributes:
        config: Precision and bound.
        device: Device that stored fields are read to.
        promised: Bytes that the shelves so far will take.
    """

    config: SpillConfig = field(default_factory=SpillConfig)
    device: str = "cpu"
    promised: int = 0

    def promise(self, folder: Path, images: int, bytes_each: int) -> None:
        """Says how much a shelf will take, before it is filled.

        Raises:
            FitError: All shelves together exceed the bound or the free space.
        """
        more = images * bytes_each
        self.promised += more
        free = shutil.disk_usage(folder).free
        _logger.info(
            "the fit keeps fields of %d images in %s: %.2f GiB, %.2f GiB in all; %.2f GiB are free",
            images,
            folder.parent,
            more / _GIB,
            self.promised / _GIB,
            free / _GIB,
        )
        most = self.config.most_gib
        if most is not None and self.promised > most * _GIB:
            bound = f"spill.most_gib allows {most:g}"
        elif more > free:
            bound = f"the disk of {folder.parent} has {free / _GIB:.1f} GiB free"
        else:
            return
        raise FitError(
            f"the fit needs {self.promised / _GIB:.1f} GiB on disk for the fields of {images} images, but {bound}; set "
            "spill.precision=float16, fewer fields or smaller images, or give it more space (TMPDIR)"
        )


class Shelf:
    """Perceptions of single images as files of a folder, including existing files."""

    def __init__(self, folder: Path, images: int, options: SpillOptions) -> None:
        """Opens or creates a folder for the perceptions of a number of images; nothing is stored yet."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._images = images
        self._options = options
        self._keys = {path.stem for path in folder.glob("*.safetensors")}

    def __contains__(self, row_key: str) -> bool:
        """Whether an image is stored."""
        return row_key in self._keys

    def put(self, perception: Perception, *, with_images: bool) -> None:
        """Stores the fields of a batch, and its images.

        Raises:
            FitError: The folder would take more space than there is or may be used.
        """
        import torch
        from safetensors.torch import save_file

        for position, key in enumerate(perception.row_keys):
            lacks = {name: own[key] for name, own in perception.missing.items() if key in own}
            held = perception.restricted(perception.names - lacks.keys())
            tensors = {name: self._packed(tensor[position]) for name, tensor in held.fields.items()}
            records: dict[str, Any] = {name: values[position] for name, values in held.texts.items()}
            records |= {name: {_LACKS: reason} for name, reason in lacks.items()}
            for name, vectors in held.vectors.items():
                tensors[name] = torch.from_numpy(np.ascontiguousarray(vectors[position]))
                records[name] = None
            for name, values in held.segments.items():
                segments = values[position]
                records[name] = {"size": segments.size, "names": segments.names}
                for part, array in segments.arrays().items():
                    tensors[f"{name}{_PART}{part}"] = torch.from_numpy(np.ascontiguousarray(array))
            if with_images:
                tensors[_IMAGE] = torch.from_numpy(np.array(perception.images[position]))
            metadata = {name: json.dumps(record) for name, record in records.items()}
            if not self._keys:
                bytes_each = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
                self._options.promise(self._folder, self._images, bytes_each)
            # Another process may read the folder, or write the same image.
            partial = self._folder / f"{key}.{os.getpid()}.partial"
            save_file(tensors, partial, metadata=metadata)
            partial.replace(self._folder / f"{key}.safetensors")
            self._keys.add(key)

    def get(self, row_keys: Sequence[str], wanted: frozenset[str]) -> Perception:
        """Reads the images and wanted fields of a batch; tensors are float32, on the device of the options."""
        images: list[np.ndarray] = []
        fields: dict[str, list[Any]] = {}
        for key in row_keys:
            with safe_open(self._folder / f"{key}.safetensors", framework="pt") as stored:
                names = set(stored.keys())
                records = {name: json.loads(text) for name, text in (stored.metadata() or {}).items()}
                if _IMAGE in names:
                    images.append(stored.get_tensor(_IMAGE).numpy())
                for name in sorted(wanted & names - records.keys()):
                    fields.setdefault(name, []).append(self._unpacked(stored.get_tensor(name)))
                for name in sorted(wanted & records.keys()):
                    fields.setdefault(name, []).append(_record(stored, name, records[name]))
        stacked = np.stack(images) if images else np.zeros((len(row_keys), 0, 0, 3), dtype=np.uint8)
        return Perception(list(row_keys), stacked).extended(fields)

    def _packed(self, tensor: Any) -> Any:
        is_halved = self._options.config.precision == "float16" and tensor.is_floating_point()
        return (tensor.half() if is_halved else tensor).contiguous().cpu()

    def _unpacked(self, tensor: Any) -> Any:
        return (tensor.float() if tensor.is_floating_point() else tensor).to(self._options.device)


def _record(stored: Any, name: str, record: Any) -> str | np.ndarray | Segments | Missing:
    """Restore a text, vectors (record None), segments (record with size and names), or the lack of a field."""
    if isinstance(record, str):
        return record
    if record is not None and _LACKS in record:
        return Missing(record[_LACKS])
    if record is None:
        return np.asarray(stored.get_tensor(name).numpy())
    prefix = f"{name}{_PART}"
    parts = [key for key in stored.keys() if key.startswith(prefix)]  # noqa: SIM118
    arrays = {key.removeprefix(prefix): stored.get_tensor(key).numpy() for key in parts}
    return Segments.restored(arrays, tuple(record["size"]), record["names"])
