from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.profiles import small_config
from support.scene_images import scene_images

from uniad_ray.config.calibration import CalibrationConfig
from uniad_ray.errors import FitError
from uniad_ray.perception.base import Originals
from uniad_ray.scoring.fitting.category import fit_category
from uniad_ray.scoring.fitting.perceptions import NormalImage
from uniad_ray.scoring.fitting.twins import are_same_picture, first_images, split_pictures

COUNT = 8


class Files:
    """Normal images in memory; None cannot be decoded."""

    def __init__(self, images: Sequence[np.ndarray | None]) -> None:
        self.images = images
        self.originals: Originals = {}
        self.rows: Sequence[NormalImage] = [NormalImage(_key(index), _key(index) * 2, "train") for index in _of(images)]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the images that can be decoded, by index."""
        return ((index, image) for index in indices if (image := self.images[index]) is not None)


def _key(index: int) -> str:
    return hashlib.sha256(str(index).encode()).hexdigest()[:32]


def _of(images: Sequence[object]) -> range:
    return range(len(images))


def compressed(image: np.ndarray, quality: int = 80) -> np.ndarray:
    """The image after JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return scene_images(COUNT, 96)


def test_products_are_no_twins(scenes: np.ndarray) -> None:
    assert first_images(Files(list(scenes))) == list(range(COUNT))


@pytest.mark.parametrize("quality", [60, 95])
def test_other_formats_are_twins(scenes: np.ndarray, quality: int) -> None:
    files = Files([*scenes[:3], scenes[2], *scenes[3:], *(compressed(image, quality) for image in scenes)])
    assert first_images(files) == [0, 1, 2, *range(4, COUNT + 1)]


def test_small_differences_are_no_twins(scenes: np.ndarray) -> None:
    shifted = np.roll(scenes[0], 1, axis=1)
    spotted = scenes[0].copy()
    spotted[40:44, 40:44] = 255 - spotted[40:44, 40:44]
    for other in (shifted, spotted):
        assert not are_same_picture(scenes[0], other)


def test_plain_surfaces_are_told_apart_by_their_grain() -> None:
    generator = np.random.default_rng(0)
    surfaces = [(128 + 3 * generator.normal(size=(96, 96, 1))).clip(0, 255).astype(np.uint8).repeat(3, 2) for _ in "ab"]
    assert not are_same_picture(*surfaces)
    assert are_same_picture(surfaces[0], compressed(surfaces[0], 95))
    flat = np.full((96, 96, 3), 128, np.uint8)
    assert are_same_picture(flat, flat)


def test_undecodable_images_and_equal_bytes(scenes: np.ndarray) -> None:
    files = Files([scenes[0], None, scenes[0], None])
    files.rows = [*files.rows[:3], replace(files.rows[3], image_id=files.rows[1].image_id)]
    assert first_images(files) == [0, 1]


def test_single_colours_are_no_pictures() -> None:
    assert first_images(Files([np.full((64, 64, 3), level, np.uint8) for level in (0, 0, 128)])) == [0, 1, 2]


def test_altered_copies_follow_their_image(scenes: np.ndarray) -> None:
    files = Files([scenes[0], scenes[1], scenes[0], scenes[2], scenes[3]])
    kept, dropped = files.rows[1].row_key, files.rows[2].row_key
    files.rows = [*files.rows[:3], replace(files.rows[3], copy_of=dropped), replace(files.rows[4], copy_of=kept)]
    assert first_images(files) == [0, 1, 4]


def test_every_picture_is_held_out_once(scenes: np.ndarray) -> None:
    doubled = [image for scene in scenes for image in (scene, compressed(scene))]
    split = split_pictures(Files(doubled), CalibrationConfig(folds=3))
    pictures = set(range(0, 2 * COUNT, 2))
    assert sorted(index for fold in split.folds for index in fold.calibrate) == sorted(pictures)
    for fold in split.folds:
        assert set(fold.fit) | set(fold.calibrate) == pictures
    assert set(split.final) == pictures
    assert all(set(indices) <= pictures for indices in (*split.learning, *split.training))


def test_copies_of_one_picture_cannot_be_fitted(scenes: np.ndarray) -> None:
    with pytest.raises(FitError, match="1 distinct normal images of 3"):
        split_pictures(Files([scenes[0], scenes[0], compressed(scenes[0])]), CalibrationConfig())


def test_twins_do_not_change_the_threshold() -> None:
    images, copies = scene_images(12, 64), 2
    config = small_config("calibration.folds=3", "experts.patch.config.memory_size=100")
    plain = fit_category(Files(list(images)), config)
    twins = [compressed(image, 70 + 10 * number) for number in range(copies) for image in images]
    doubled = fit_category(Files([*images, *twins]), config)
    assert doubled.twins == 12 * copies
    assert doubled.calibration.held_out_images == 12
    assert doubled.calibration == plain.calibration
