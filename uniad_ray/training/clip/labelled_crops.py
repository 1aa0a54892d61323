"""Crops of objects with their classes, in memory as PNG and stored as one file."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from uniad_ray.archive.images import decode_image, probe_image
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import FitError, ImageError
from uniad_ray.perception.objects.crops import square_crop
from uniad_ray.training.array_file import read_arrays, write_arrays


@dataclass(frozen=True)
class LabelledCrop:
    """One crop.

    Attributes:
        key: Unique name.
        image_id: sha256 of the source image; crops of one image are held out together.
        category: Category of the source image.
        label: Index of its class.
        png: The crop, RGB.
    """

    key: str
    image_id: str
    category: str
    label: int
    png: bytes

    def pixels(self) -> np.ndarray:
        """Decodes the crop: uint8, shape (side, side, 3)."""
        return np.array(Image.open(io.BytesIO(self.png)).convert("RGB"))


@dataclass(frozen=True)
class LabelledCrops:
    """The crops of a source, sorted by key.

    Attributes:
        crops: The crops.
        left_out: Number of omitted objects, by reason.
    """

    crops: Sequence[LabelledCrop] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over everything in the crops that affects a tuning."""
        found = hashlib.sha256()
        for crop in self.crops:
            line = f"{crop.key}\n{crop.image_id}\n{crop.category}\n{crop.label} {len(crop.png)}\n"
            found.update(line.encode() + crop.png)
        return found.hexdigest()

    @classmethod
    def joined(cls, parts: Sequence[LabelledCrops]) -> Self:
        """Joins the crops of several sources."""
        left_out: Counter[str] = Counter()
        for part in parts:
            left_out.update(part.left_out)
        crops = sorted((crop for part in parts for crop in part.crops), key=lambda crop: crop.key)
        return cls(crops, dict(left_out))

    @classmethod
    def at_most(cls, crops: Sequence[LabelledCrop], most: int, left_out: Mapping[str, int], seed: int) -> Self:
        """Keeps at most `most` crops of each class and category, chosen by hash.

        Args:
            crops: All crops.
            most: Maximum number of crops of one class in one category.
            left_out: Number of omitted objects, by reason.
            seed: Seed of the choice.
        """
        kept: Counter[tuple[str, int]] = Counter()
        chosen = []
        for crop in sorted(crops, key=lambda crop: hashlib.sha256(f"{seed} {crop.key}".encode()).digest()):
            kept[crop.category, crop.label] += 1
            if kept[crop.category, crop.label] <= most:
                chosen.append(crop)
        surplus = {"surplus": len(crops) - len(chosen)} if len(chosen) < len(crops) else {}
        reasons = {reason: count for reason, count in left_out.items() if count} | surplus
        return cls(sorted(chosen, key=lambda crop: crop.key), reasons)

    def write(self, location: Location) -> None:
        """Stores the crops in one file of arrays, with a digest."""
        data = b"".join(crop.png for crop in self.crops)
        arrays: dict[str, np.ndarray] = {
            "png": np.frombuffer(data, dtype=np.uint8),
            "sizes": np.array([len(crop.png) for crop in self.crops], dtype=np.int64),
            "labels": np.array([crop.label for crop in self.crops], dtype=np.int64),
        }
        names = [[crop.key, crop.image_id, crop.category] for crop in self.crops]
        write_arrays(location, arrays, {"names": names, "left_out": dict(self.left_out)})

    @classmethod
    def read(cls, location: Location) -> Self:
        """Reads a file of `write`.

        Raises:
            ObjectNotFoundError: The file does not exist.
            StoreError: The file is corrupt or something else.
        """
        arrays, document = read_arrays(location)
        ends = np.cumsum(arrays["sizes"])
        data = arrays["png"].tobytes()
        crops = [
            LabelledCrop(key, image_id, category, int(label), data[end - size : end])
            for (key, image_id, category), label, size, end in zip(
                document["names"], arrays["labels"], arrays["sizes"].tolist(), ends.tolist(), strict=True
            )
        ]
        return cls(crops, document["left_out"])


def encode_crop(pixels: np.ndarray) -> bytes:
    """Encodes a crop losslessly as PNG; uint8, shape (side, side, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def read_crop_folder(folder: Path, classes: Sequence[str], *, side: int, padding: float) -> LabelledCrops:
    """Reads crops sorted into `FOLDER/CLASS/*`, in any image format of an archive.

    Args:
        folder: Has one folder per class; each image is the box of one object, black outside the object.
        classes: Names of the classes; any other folder is an error, because its name may be a typo.
        side: Side of the crops, pixels.
        padding: Black margin around an object, as a fraction of the longer side of its box.

    Raises:
        FitError: The folder is missing, a folder is not a class, or an image cannot be decoded.
    """
    if not folder.is_dir():
        raise FitError(f"{folder}: no such folder; sort crops into folders named by their classes")
    found: list[LabelledCrop] = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if place.name not in classes:
            raise FitError(f"{place}: not the name of a class; the classes are {', '.join(classes)}")
        found += [
            _read_crop(path, folder, list(classes).index(place.name), side, padding)
            for path in sorted(place.iterdir())
            if path.is_file() and not path.name.startswith(".")
        ]
    return LabelledCrops(sorted(found, key=lambda crop: crop.key))


def _read_crop(path: Path, folder: Path, label: int, side: int, padding: float) -> LabelledCrop:
    data = path.read_bytes()
    try:
        info = probe_image(data)
        pixels = decode_image(data, (info.height, info.width))
    except ImageError as error:
        raise FitError(f"{path}: {error}; fix or remove it") from error
    if info.mode in ("LA", "PA", "RGBA"):
        raise FitError(f"{path}: has transparency; paint the background black, and save it without transparency")
    png = encode_crop(square_crop(pixels, size=side, padding=padding))
    return LabelledCrop(path.relative_to(folder).as_posix(), hashlib.sha256(data).hexdigest(), "", label, png)


def class_counts(crops: Sequence[LabelledCrop], classes: Sequence[Any]) -> list[int]:
    """Number of crops of each class."""
    counted = Counter(crop.label for crop in crops)
    return [counted[number] for number in range(len(classes))]
