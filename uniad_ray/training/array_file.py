"""Named arrays and a JSON document in one object: safetensors, with a digest of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from uniad_ray.archive.stores.base import decode_json
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import StoreError

_MAX_BYTES = 5 << 30
_METADATA = "document"


def write_arrays(location: Location, arrays: Mapping[str, np.ndarray], document: Mapping[str, Any]) -> None:
    """Writes atomically; equal content has equal bytes.

    Args:
        location: Destination.
        arrays: Arrays by name.
        document: JSON types.
    """
    contiguous = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    # One metadata entry, because safetensors writes several in random order.
    sealed = json.dumps({"content": text, "sha256": _digest(contiguous, text)}, sort_keys=True)
    location.write_bytes(save(contiguous, metadata={_METADATA: sealed}))


def read_arrays(location: Location) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file of `write_arrays`.

    Raises:
        ObjectNotFoundError: The file does not exist.
        StoreError: The file is corrupt or something else.
    """
    data = location.read_bytes(max_bytes=_MAX_BYTES)
    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        sealed = json.loads(header["__metadata__"][_METADATA])
        text, digest = sealed["content"], sealed["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{location}: not a training state, or corrupt ({error}); delete it") from error
    if digest != _digest(arrays, text):
        raise StoreError(f"{location}: checksum mismatch: the file is corrupt; delete it")
    document: dict[str, Any] = decode_json(location.uri, text.encode())
    return arrays, document


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"\n{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
