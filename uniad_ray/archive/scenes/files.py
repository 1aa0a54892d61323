"""Files of a synthetic category, and their encoding."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Split = Literal["train", "validation", "test"]
Group = Literal["good", "logical_anomalies", "structural_anomalies"]
ImageFormat = Literal["png", "jpeg"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
GROUPS: tuple[Group, ...] = ("good", "logical_anomalies", "structural_anomalies")


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One file of the category.

    Attributes:
        path: Relative path with forward slashes, including the category folder.
        data: Bytes of the file.
        is_image: Whether it is an image of the category; masks and descriptions are not.
    """

    path: str
    data: bytes
    is_image: bool = False


def suffix_of(image_format: ImageFormat) -> str:
    """Returns the suffix of image files, without the dot."""
    return "png" if image_format == "png" else "jpg"


def encode_json(value: Any) -> bytes:
    """Encodes a JSON document for people."""
    return (json.dumps(value, indent=2) + "\n").encode()


def encode_image(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], image_format: ImageFormat) -> bytes:
    """Encodes an image: uint8 [h, w, 3] or [h, w]; PNG also takes uint16 [h, w]."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if image_format == "png":
        image.save(buffer, format="PNG", compress_level=3)
    else:
        image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
