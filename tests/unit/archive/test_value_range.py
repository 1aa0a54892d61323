"""The range of values of a category's 16-bit images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from support.image_bytes import SCENE, encode
from support.runs import ScoredImage, write_archive

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.value_range import Seen, category_config, choose_range, find_value_range
from uniad_ray.config.loading import load_config
from uniad_ray.errors import ConfigError


def seen(*values: np.ndarray | list[int], has_others: bool = False) -> Seen:
    joined = np.concatenate([np.zeros(0, dtype=int), *(np.ravel(own) for own in values)]).astype(int)
    return Seen(np.bincount(joined, minlength=65536), has_others)


def ramp(low: int, high: int) -> np.ndarray:
    return np.linspace(low, high, 100_000).round().astype(int)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (20, 240, (0, 255)),
        (0, 1000, (0, 1023)),
        (100, 3000, (0, 4095)),
        (100, 16000, (0, 16383)),
        (0, 65535, (0, 65535)),
        # A product that uses 512 values of a camera with 12 bits: as much again below and above, in steps of 128.
        (1600, 2112, (1024, 2688)),
        # A dark one: nothing is below 0.
        (20, 420, (0, 896)),
    ],
)
def test_range_is_that_of_the_camera_unless_little_of_it_is_used(
    low: int, high: int, expected: tuple[int, int]
) -> None:
    camera = [4095] if expected in ((1024, 2688), (0, 896)) else []
    assert choose_range(seen(ramp(low, high), camera)) == expected


def test_bright_defect_in_a_narrow_range_is_not_clipped() -> None:
    found = choose_range(seen(ramp(1600, 2112), [4095]))
    assert found is not None
    assert found[1] >= 2112 + 512
    assert found[0] <= 1600 - 512


def test_small_part_of_the_product_stays_in_range() -> None:
    pins = np.full(200, 3900)  # 0.2 % of the pixels
    assert choose_range(seen(ramp(100, 300), pins)) == (0, 4095)


def test_a_few_images_more_keep_the_range() -> None:
    rng = np.random.default_rng(0)
    ranges = {choose_range(seen(rng.normal(1500, 40, 50_000).round().astype(int), [4090])) for _ in range(20)}
    assert len(ranges) == 1


def test_beside_images_with_eight_bits_the_camera_decides() -> None:
    assert choose_range(seen(ramp(1600, 2112), [4095], has_others=True)) == (0, 4095)
    assert choose_range(seen(has_others=True)) is None


def test_single_value_has_a_range() -> None:
    low, high = choose_range(seen([2000] * 10)) or (0, 0)
    assert low < 2000 < high
    assert high - low >= 255


def image(name: str, value: int, *, split: str = "train", label: str = "normal", bits: int = 16) -> ScoredImage:
    pixels = np.full((48, 48), value, np.uint16 if bits == 16 else np.uint8)
    category = name.split("/")[0]
    return ScoredImage(name, encode(pixels, "PNG"), None, category=category, label=label, split=split)


def test_only_normal_images_count(tmp_path: Path) -> None:
    images = [image(f"part/{index}.png", 100 + 900 * index) for index in range(3)]
    images += [image("part/scratch.png", 60_000, label="anomalous", split="validation")]
    images += [image("part/good.png", 9_000, split="test")]
    images += [image(f"plain/{index}.png", index, bits=8) for index in range(2)]
    images += [image("unlabelled/0.png", 9_000, label="anomalous", split="test")]
    archive = write_archive(tmp_path, images)
    manifest = read_manifest(archive)
    assert find_value_range(archive, manifest, "part") == (0, 4095)
    excluded = hashlib.sha256(images[2].image).hexdigest()
    assert find_value_range(archive, manifest, "part", exclude=(excluded,)) == (0, 1023)
    assert find_value_range(archive, manifest, "plain") is None
    assert find_value_range(archive, manifest, "unlabelled") == (8704, 9216)

    config = load_config("embedded")
    found = category_config(config, archive, manifest, "part")
    assert (found.value_range, found.image_size) == ((0, 4095), (48, 48))
    by_hand = config.model_copy(update={"value_range": (10, 500)})
    assert category_config(by_hand, archive, manifest, "part").value_range == (10, 500)
    assert category_config(config, archive, manifest, "plain").value_range is None


def test_images_with_eight_bits_beside_others_are_noticed(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).normal(1800, 30, (48, 48)).astype(np.uint16)
    images = [ScoredImage("0.png", encode(deep, "PNG"), None, split="train")]
    archive = write_archive(tmp_path / "alone", images)
    narrow = find_value_range(archive, read_manifest(archive), "part")
    assert narrow is not None
    assert narrow[0] > 0
    images += [ScoredImage("1.png", encode(SCENE, "PNG"), None, split="train")]
    archive = write_archive(tmp_path / "mixed", images)
    assert find_value_range(archive, read_manifest(archive), "part") == (0, 4095)


@pytest.mark.parametrize("given", ["[5,5]", "[9,1]", "[0,70000]", "[1]", "wide"])
def test_impossible_ranges_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="value_range"):
        load_config("embedded", [f"value_range={given}"])
