"""Images of the synthetic category, drawn in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from support.runs import ScoredImage

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.dataset import draw_scene
from uniad_ray.archive.scenes.files import Group
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.scoring.fitting.perceptions import NormalImage


def scene_images(count: int, size: int, *, seed: int = 20, group: Group = "good") -> np.ndarray:
    """Images, uint8, shape (count, size, size, 3)."""
    config, rules = SceneConfig(image_size=size, seed=seed), SceneRules()
    scenes = [draw_scene(config, "train" if group == "good" else "test", group, index) for index in range(count)]
    return np.stack([render(scene, rules, size).image for scene in scenes])


def archive_rows(images: Sequence[np.ndarray], *, split: str = "train") -> list[ScoredImage]:
    """Normal images as rows of an archive."""
    rows = []
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        size = (image.shape[1], image.shape[0])
        rows.append(ScoredImage(f"{number:03d}.png", buffer.getvalue(), None, split=split, size=size))
    return rows


class GivenNormalImages:
    """Normal images in memory."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = images
        self.originals: dict[str, bytes] = {}
        self.rows: Sequence[NormalImage] = [NormalImage(f"{i:032d}", f"{i:064d}", "train") for i in range(len(images))]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields images by index."""
        return ((index, self.images[index]) for index in indices)
