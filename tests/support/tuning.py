"""A tiny CLIP to tune, crops of plain colours, and a profile that uses it to name objects."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig
from uniad_ray.perception.base import Perception
from uniad_ray.perception.objects.clip_tuning_config import ClipTuningConfig
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.weights.model_folders import ModelFolderSource
from uniad_ray.training.clip.crop_classifier import CropClassifier
from uniad_ray.training.clip.labelled_crops import LabelledCrop, LabelledCrops, encode_crop
from uniad_ray.training.clip.tuning import ClipTuning

COLOURS = {"red": (220, 30, 20), "green": (30, 200, 40), "blue": (30, 40, 220)}
TEXTS = tuple(f"a {colour} object" for colour in COLOURS)
SIDE = 8


def coloured_crop(colour: str, seed: int, side: int = SIDE) -> np.ndarray:
    """A patch of roughly one colour on black, uint8, shape (side, side, 3)."""
    rng = np.random.default_rng(seed)
    crop = np.zeros((side, side, 3), dtype=np.uint8)
    edge = max(1, side // 8)
    inside = np.array(COLOURS[colour]) + rng.integers(-30, 31, size=(side - 2 * edge, side - 2 * edge, 3))
    crop[edge:-edge, edge:-edge] = np.clip(inside, 0, 255)
    return crop


def coloured_crops(images: int = 12, category: str = "trays") -> LabelledCrops:
    """One crop of each colour from each of some images."""
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
    """The same crops, sorted into folders as by a user."""
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for image in range(images):
            Image.fromarray(coloured_crop(colour, image, 20)).save(folder / colour / f"{image:02d}.png")


def tiny_tuning(**changes: Any) -> ClipTuningConfig:
    """Options with few steps and a high learning rate, as random parameters need."""
    options = {"blocks": 1, "epochs": 4, "batch_size": 6, "learning_rate": 0.02, "warm_up": 0, "held_out": 0.25}
    return ClipTuningConfig.model_validate(options | changes)


def tiny_classifier(folder: Path) -> CropClassifier:
    """A tiny CLIP with the texts of the colours."""
    return CropClassifier("namer", ModelFolderSource(uri=f"file:{folder}"), TEXTS, "cpu")


def clip_tuning(folder: Path, crops: LabelledCrops | None = None, group: Any = None, **changes: Any) -> ClipTuning:
    """A tuning of a tiny CLIP on coloured crops."""
    return ClipTuning(tiny_tuning(**changes), tiny_classifier(folder), TEXTS, crops or coloured_crops(), group=group)


def coloured_tray(seed: int, side: int = 64) -> np.ndarray:
    """A dark image with one square of each colour at random places, uint8, shape (side, side, 3)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 20, size=(side, side, 3), dtype=np.uint8)
    for column, colour in enumerate(rng.permutation(list(COLOURS))):
        size = int(rng.integers(side // 6, side // 4))
        top, left = int(rng.integers(2, side - size - 2)), column * side // 3 + 2
        image[top : top + size, left : left + size] = coloured_crop(colour, seed, size)
    return image


class ColourSegmenterConfig(StrictModel):
    """Options of the segmenter.

    Attributes:
        named: Whether segments are named by their colours.
    """

    named: bool = True


class ColourSegmenter:
    """Finds the squares of `coloured_tray`, with confidence 0.9, or 0.4 for green ones."""

    config_model = ColourSegmenterConfig

    def __init__(self, name: str, config: ColourSegmenterConfig, device: str) -> None:  # noqa: ARG002
        self.name = name
        self.config = config
        self.needs: frozenset[str] = frozenset()
        self.provides = self.fields_of(name, config)

    @classmethod
    def fields_of(cls, name: str, config: ColourSegmenterConfig) -> frozenset[str]:  # noqa: ARG003
        return frozenset({f"{name}/segments"})

    def extract(self, perception: Perception) -> dict[str, list[Segments]]:
        found = []
        for image in perception.images:
            masks = [(image.argmax(axis=2) == channel) & (image.max(axis=2) > 100) for channel in range(3)]
            sure = np.array([0.4 if name == "green" else 0.9 for name in COLOURS])
            found.append(Segments.of(np.stack(masks), sure, list(COLOURS) if self.config.named else None))
        return {f"{self.name}/segments": found}

    def lineage(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")


def colour_fit(clip: str, *, named: bool = True, tuning: dict[str, Any] | None = None, **namer: Any) -> FitConfig:
    """A fit configuration at 64 pixels with objects named by a CLIP, and only the text memory as expert."""
    options = tiny_tuning(**{"labels": "finder/segments", **(tuning or {})}).model_dump(mode="json", exclude_none=True)
    weights = {"uri": clip}
    extractors = {
        "finder": ("support.tuning:ColourSegmenter", {"named": named}),
        "looks": (
            "uniad_ray.perception.objects.clip_features:ClipObjectFeatures",
            {"segments": "finder/segments", "weights": weights},
        ),
        "objects": (
            "uniad_ray.perception.objects.clip_namer:ClipNamer",
            {
                "segments": "finder/segments",
                "vectors": "looks/vectors",
                "weights": weights,
                "classes": list(COLOURS),
                "prompt": "a {} object",
                "tuning": options,
                **namer,
            },
        ),
        "description": ("uniad_ray.perception.text.object_describer:ObjectDescriber", {"segments": "objects/segments"}),
    }
    memory = {"text": "description/text", "segments": "objects/segments"}
    return FitConfig.model_validate(
        {
            "name": "colours",
            "image_size": [64, 64],
            "map_size": 16,
            "batch_size": 4,
            "extractors": {name: {"class": path, "config": config} for name, (path, config) in extractors.items()},
            "experts": {"text": {"class": "uniad_ray.experts.text.memory:TextMemory", "config": memory}},
            "expert_sets": {"text": ["text"]},
            "expert_set": "text",
        }
    )
