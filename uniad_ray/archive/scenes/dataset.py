"""Files of a synthetic category, in the folder layout of MVTec LOCO AD.

Layout and ground truth follow Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly
Detection and Localization", IJCV 2022. Each anomalous image has a folder of masks. The grey value of a mask names the
defect, and the saturation threshold says how much of a mask must be found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydantic import Field

from uniad_ray.archive.scenes.files import (
    GROUPS,
    SPLITS,
    Group,
    ImageFormat,
    SceneFile,
    Split,
    encode_image,
    encode_json,
    suffix_of,
)
from uniad_ray.archive.scenes.layout import draw_logical, draw_normal, draw_structural
from uniad_ray.archive.scenes.model import LogicalDefect, PartKind, Scene, StructuralDefect
from uniad_ray.archive.scenes.painting import REFERENCE_SIZE, Rendering, render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.archive.scenes.shapes import nominal_area
from uniad_ray.config.base import StrictModel

_DEFECTS: tuple[LogicalDefect | StructuralDefect, ...] = (*LogicalDefect, *StructuralDefect)
_HIGHEST_PIXEL_VALUE = 255


class SceneConfig(StrictModel):
    """Options of the synthetic data set.

    Attributes:
        category: Name of the category and its folder.
        seed: Seed of all images.
        image_size: Side of the images in pixels.
        train: Number of normal training images.
        validation: Number of normal validation images.
        test_good: Number of normal test images.
        logical: Number of test images that break a rule; the sub-kinds alternate.
        structural: Number of test images with a damaged surface; the sub-kinds alternate.
        image_format: File format of the images; masks are always PNG.
    """

    category: str = Field(default="trays", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    seed: int = Field(default=0, ge=0)
    image_size: int = Field(default=256, ge=64, le=1024)
    train: int = Field(default=80, ge=0)
    validation: int = Field(default=0, ge=0)
    test_good: int = Field(default=40, ge=0)
    logical: int = Field(default=40, ge=0)
    structural: int = Field(default=40, ge=0)
    image_format: ImageFormat = "png"


def draw_scene(config: SceneConfig, split: Split, group: Group, index: int, rules: SceneRules | None = None) -> Scene:
    """Draws the scene of one image: its parts, view and defect; all its ground truth follows from them.

    Each image has its own random generator, so it does not depend on the number of images.

    Args:
        config: Source of the seed.
        split: Split of the image.
        group: Its folder; only `test` has groups other than `good`.
        index: Its index, from 0.
        rules: Rules of the tray; None uses the default rules.
    """
    rules = rules or SceneRules()
    rng = np.random.default_rng([config.seed, SPLITS.index(split), GROUPS.index(group), index])
    if group == "logical_anomalies":
        return draw_logical(rules, tuple(LogicalDefect)[index % len(LogicalDefect)], rng)
    if group == "structural_anomalies":
        return draw_structural(rules, tuple(StructuralDefect)[index % len(StructuralDefect)], rng)
    return draw_normal(rules, rng)


def iterate_files(config: SceneConfig) -> Iterator[SceneFile]:
    """Draws the category file by file; holds one image in memory at a time.

    The same configuration gives the same bytes, on the same versions of numpy, scipy and Pillow.

    Args:
        config: Options of the data set.

    Yields:
        `defects_config.json`, then each image; the masks of an anomalous image follow it.
    """
    rules = SceneRules()
    yield SceneFile(f"{config.category}/defects_config.json", encode_json(defects_config(config)))
    plan: tuple[tuple[Split, Group, int], ...] = (
        ("train", "good", config.train),
        ("validation", "good", config.validation),
        ("test", "good", config.test_good),
        ("test", "logical_anomalies", config.logical),
        ("test", "structural_anomalies", config.structural),
    )
    suffix = suffix_of(config.image_format)
    for split, group, count in plan:
        for index in range(count):
            scene = draw_scene(config, split, group, index, rules)
            rendering = render(scene, rules, config.image_size)
            image = encode_image(rendering.image, config.image_format)
            yield SceneFile(f"{config.category}/{split}/{group}/{index:03d}.{suffix}", image, is_image=True)
            for number, mask in enumerate(defect_masks(scene, rendering)):
                path = f"{config.category}/ground_truth/{group}/{index:03d}/{number:03d}.png"
                yield SceneFile(path, encode_image(mask, "png"))


def defects_config(config: SceneConfig) -> list[dict[str, str | int | float | bool]]:
    """The entries of `defects_config.json`, one per sub-kind.

    A mask of a logical defect may cover several places, and finding the area of one part is enough. It saturates at the
    area of the smallest part. A mask of a structural defect saturates at its whole area.
    """
    unit = (config.image_size / REFERENCE_SIZE) ** 2
    smallest = round(min(nominal_area(kind) for kind in PartKind) * unit)
    entries: list[dict[str, str | int | float | bool]] = []
    for defect in _DEFECTS:
        logical = isinstance(defect, LogicalDefect)
        entries.append(
            {
                "defect_name": str(defect),
                "pixel_value": _pixel_value(defect),
                "saturation_threshold": smallest if logical else 1.0,
                "relative_saturation": not logical,
            }
        )
    return entries


def defect_masks(scene: Scene, rendering: Rendering) -> list[npt.NDArray[np.uint8]]:
    """The masks of a scene's defects, uint8 [size, size]: the pixel value of the defect inside, 0 elsewhere.

    Each defect has one mask, which covers every place where the defect may be reported. For a missing part these are
    all cells that the rules allow; otherwise every part whose change would restore the rules. Empty for a normal scene.
    """
    masks = []
    if scene.logical is not None:
        where = np.zeros(rendering.image.shape[:2], np.bool_)
        for index in scene.suspects:
            where |= rendering.part_masks[index]
        for cell in scene.vacancies:
            where |= rendering.cell_masks[cell]
        masks.append(where * np.uint8(_pixel_value(scene.logical)))
    if scene.damage is not None and rendering.damage_mask is not None:
        masks.append(rendering.damage_mask * np.uint8(_pixel_value(scene.damage.kind)))
    return masks


def _pixel_value(defect: LogicalDefect | StructuralDefect) -> int:
    return _HIGHEST_PIXEL_VALUE - _DEFECTS.index(defect)
