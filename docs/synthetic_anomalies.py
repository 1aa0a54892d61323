"""Draw the picture of docs/fused.md: normal images, and synthetic logical anomalies made from them.

`python docs/synthetic_anomalies.py` draws a row for the trays and for each of two products.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.archive.scenes.dataset import SceneConfig, draw_scene
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.products.product import draw_image, draw_product
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.config.loading import load_config
from uniad_ray.perception.base import LearnedExtractor, Perception
from uniad_ray.scoring.factory import build_pipeline
from uniad_ray.scoring.fitting.synthetic.kinds import SYNTHETIC_ANOMALIES, family_of, make_synthetic_anomaly
from uniad_ray.scoring.fitting.synthetic.parts import Parts

FILE: Final = Path(__file__).parent / "images/synthetic.png"
PRODUCTS: Final = (101, 106)
KINDS: Final = tuple(kind for kind in SYNTHETIC_ANOMALIES if family_of(kind) != "surface")
_SIDE, _GAP, _TITLE, _IMAGES = 118, 5, 16, 16
_SEGMENTS: Final = "objects/segments"


def main() -> None:
    """Draw the picture."""
    rows = [trays(), *(product(seed) for seed in PRODUCTS)]
    width, height = _SIDE + _GAP, _SIDE + _GAP
    picture = Image.new("RGB", (width * (len(KINDS) + 1) - _GAP, _TITLE + height * len(rows) - _GAP), "white")
    pen = ImageDraw.Draw(picture)
    for column, title in enumerate(("normal", *KINDS)):
        pen.text((column * width, 1), title.replace("_", " "), fill="#202020")
    for row, images in enumerate(rows):
        found = parts_of(images)
        shown = [found[0].image, *(anomaly(kind, found) for kind in KINDS)]
        for column, image in enumerate(shown):
            if image is not None:
                small = Image.fromarray(image)
                small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
                picture.paste(small, (column * width, _TITLE + row * height))
    picture.quantize(256, dither=Image.Dither.NONE).save(FILE, optimize=True)


def trays() -> list[np.ndarray]:
    """Normal images of the trays."""
    config = SceneConfig()
    rules = SceneRules()
    scenes = [draw_scene(config, "train", "good", index, rules) for index in range(_IMAGES)]
    return [render(scene, rules, config.image_size).image for scene in scenes]


def product(seed: int) -> list[np.ndarray]:
    """Normal images of a product, at the size that a fit uses."""
    drawn = [draw_image(draw_product(seed), "train", "good", index).image for index in range(_IMAGES)]
    height, width = fitted_size(drawn[0].shape[:2], load_config("embedded").longest_side)
    return [np.asarray(Image.fromarray(image).resize((width, height))) for image in drawn]


def parts_of(images: list[np.ndarray]) -> list[Parts]:
    """Parts of images, by the segmenter of the default set."""
    pipeline = build_pipeline(load_config("embedded"), [(_SEGMENTS, "the picture")], device="cpu", check_unused=False)
    perception = Perception([f"{index:032x}" for index in range(len(images))], np.stack(images))
    for extractor in pipeline.extractors:
        if isinstance(extractor, LearnedExtractor):
            extractor.fit(partial(iter, [perception]))
        perception = perception.extended(extractor.extract(perception))
    return [Parts(image, found) for image, found in zip(images, perception.segments[_SEGMENTS], strict=True)]


def anomaly(kind: str, parts: list[Parts]) -> np.ndarray | None:
    """A synthetic anomaly of the first image; None if the kind does not apply."""
    return make_synthetic_anomaly(kind, "docs", parts[0], parts[1:], seed=0)


if __name__ == "__main__":
    main()
