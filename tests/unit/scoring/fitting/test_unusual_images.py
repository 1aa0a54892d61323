from __future__ import annotations

import numpy as np
import torch

from uniad_ray.perception.base import Perception
from uniad_ray.scoring.fitting.unusual_images import MIN_IMAGES, UnusualImages


def batch(images: np.ndarray, first: int = 0) -> Perception:
    fields = {"net/level1": torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255}
    return Perception([f"k{first + index}" for index in range(len(images))], images, fields)


def noisy(count: int, colour: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (count, 16, 16, 3))
    return (np.array(colour) + noise).clip(0, 255).astype(np.uint8)


def test_images_that_are_alike_are_not_unusual() -> None:
    unusual = UnusualImages()
    unusual.add(batch(noisy(40, (120, 110, 100))))
    assert unusual.find() == {}
    assert not unusual.all_plain()


def test_a_few_images_of_another_kind_are_named_even_if_they_are_like_each_other() -> None:
    unusual = UnusualImages()
    unusual.add(batch(noisy(20, (120, 110, 100))))
    unusual.add(batch(noisy(6, (20, 40, 220), seed=1), first=20))
    assert sorted(unusual.find()) == [f"k{index}" for index in range(20, 26)]


def test_an_image_of_one_colour_is_named_however_few_there_are() -> None:
    unusual = UnusualImages()
    images = noisy(3, (120, 110, 100))
    images[1] = 0
    unusual.add(batch(images))
    assert unusual.find() == {"k1": "is of one colour throughout"}


def test_images_of_one_colour_only_are_noticed() -> None:
    unusual = UnusualImages()
    assert not unusual.all_plain()
    unusual.add(batch(np.zeros((3, 16, 16, 3), dtype=np.uint8)))
    assert unusual.all_plain()


def test_too_few_images_say_nothing_of_what_is_usual() -> None:
    unusual = UnusualImages()
    unusual.add(batch(noisy(MIN_IMAGES - 2, (120, 110, 100))))
    unusual.add(batch(noisy(1, (20, 40, 220)), first=90))
    assert unusual.find() == {}
