"""A tiny CLIP that can be tuned, crops of plain colours for it, and a profile in which it names objects."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniad_ray.perception.model_folders import ModelFolderSource
from uniad_ray.perception.tuning_config import ClipTuningConfig
from uniad_ray.training.clip_tuning import ClipTuning
from uniad_ray.training.crop_classifier import CropClassifier
from uniad_ray.training.labelled_crops import LabelledCrop, LabelledCrops, encode_crop

COLOURS = {"red": (220, 30, 20), "green": (30, 200, 40), "blue": (30, 40, 220)}
TEXTS = tuple(f"a {colour} object" for colour in COLOURS)
SIDE = 8


def coloured_crop(colour: str, seed: int, side: int = SIDE) -> np.ndarray:
    """A patch of about one colour on black: uint8, shape (side, side, 3)."""
    rng = np.random.default_rng(seed)
    crop = np.zeros((side, side, 3), dtype=np.uint8)
    edge = max(1, side // 8)
    inside = np.array(COLOURS[colour]) + rng.integers(-30, 31, size=(side - 2 * edge, side - 2 * edge, 3))
    crop[edge:-edge, edge:-edge] = np.clip(inside, 0, 255)
    return crop


def coloured_crops(images: int = 12, category: str = "trays") -> LabelledCrops:
    """One crop of each colour out of each of some images."""
    crops = []
    for image in range(images):
        image_id = hashlib.sha256(f"{category} {image}".encode()).hexdigest()
        crops += [
            LabelledCrop(
                f"{image_id}/{label}", image_id, category, label, encode_crop(coloured_crop(colour, 10 * image + label))
            )
            for label, colour in enumerate(COLOURS)
        ]
    return LabelledCrops(sorted(crops, key=lambda crop: crop.key))


def sorted_crops(folder: Path, images: int = 12) -> None:
    """The same as a user sorts them."""
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for image in range(images):
            Image.fromarray(coloured_crop(colour, image, 20)).save(folder / colour / f"{image:02d}.png")


def tiny_tuning(**changes: Any) -> ClipTuningConfig:
    """Few steps with a high rate, as random parameters need."""
    options = {"blocks": 1, "epochs": 4, "batch_size": 6, "learning_rate": 0.02, "warm_up": 0, "held_out": 0.25}
    return ClipTuningConfig.model_validate(options | changes)


def tiny_classifier(folder: Path) -> CropClassifier:
    """A tiny CLIP before the texts of the colours."""
    return CropClassifier("namer", ModelFolderSource(uri=f"file:{folder}"), TEXTS, "cpu")


def clip_tuning(folder: Path, crops: LabelledCrops | None = None, group: Any = None, **changes: Any) -> ClipTuning:
    """A tuning of a tiny CLIP on coloured crops."""
    return ClipTuning(tiny_tuning(**changes), tiny_classifier(folder), TEXTS, crops or coloured_crops(), group=group)
