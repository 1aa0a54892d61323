from __future__ import annotations

import numpy as np
import torch

from uniad_ray.config.region import RegionMask
from uniad_ray.perception.base import Perception
from uniad_ray.perception.region import Region
from uniad_ray.scoring.fitting.unusual_images import MIN_IMAGES, UnusualImages


def batch(images: np.ndarray, first: int = 0) -> Perception:
    fields = {"net/level1": torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255}
    return Perception([f"k{first + index}" for index in range(len(images))], images, fields)


def noisy(count: int, colour: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (count, 16, 16, 3))
    return (np.array(colour) + noise).clip(0, 255).astype(np.uint8)


def test_similar_images_are_not_unusual() -> None:
    unusual = UnusualImages()
    unusual.add(batch(noisy(40, (120, 110, 100))))
    assert unusual.find() == {}
    assert not unusual.all_plain()


def test_group_of_outliers_is_found() -> None:
    unusual = UnusualImages()
    unusual.add(batch(noisy(20, (120, 110, 100))))
    unusual.add(batch(noisy(6, (20, 40, 220), seed=1), first=20))
    assert sorted(unusual.find()) == [f"k{index}" for index in range(20, 26)]


def test_single_colour_image_is_found_among_few() -> None:
    unusual = UnusualImages()
    images = noisy(3, (120, 110, 100))
    images[1] = 0
    unusual.add(batch(images))
    assert unusual.find() == {"k1": "has a single colour"}


def test_paint_outside_of_the_region_is_no_second_colour() -> None:
    mask = np.ones((16, 16), dtype=bool)
    mask[:, 10:] = False
    region = Region(RegionMask.of(mask), (16, 16))
    images = noisy(3, (120, 110, 100))
    images[1] = 0
    unusual = UnusualImages(region)
    unusual.add(batch(region.painted(images)))
    assert unusual.find() == {"k1": "has a single colour"}
    unusual = UnusualImages(region)
    unusual.add(batch(region.painted(np.zeros_like(images))))
    assert unusual.all_plain()


def test_all_plain_is_true_for_single_colour_images() -> None:
    unusual = UnusualImages()
    assert not unusual.all_plain()
    unusual.add(batch(np.zeros((3, 16, 16, 3), dtype=np.uint8)))
    assert unusual.all_plain()


def test_too_few_images_have_no_outliers() -> None:
    unusual = UnusualImages()
    unusual.add(batch(noisy(MIN_IMAGES - 2, (120, 110, 100))))
    unusual.add(batch(noisy(1, (20, 40, 220)), first=90))
    assert unusual.find() == {}
