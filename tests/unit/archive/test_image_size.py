"""The size that the images of a category are decoded to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import small_config
from support.runs import ScoredImage, write_archive

from uniad_ray.archive.image_size import fitted_size, reduced, with_image_size
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ArchiveError, ConfigError

SIDES = st.integers(1, 20_000)


def image(number: int, height: int, width: int, *, label: str | None = "normal", split: str = "train") -> ScoredImage:
    # The bytes are never decoded.
    return ScoredImage(f"{number}.png", b"%d" % number, None, label=label, split=split, size=(width, height))


def resolved(root: Path, images: list[ScoredImage], *overrides: str) -> tuple[int, int]:
    archive = write_archive(root, images)
    config = small_config("image_size=null", *overrides)
    return with_image_size(config, archive, read_manifest(archive), "part").decoded_size


@pytest.mark.parametrize(
    ("sizes", "longest_side", "expected"),
    [
        ([(480, 640)], 640, (480, 640)),
        ([(480, 640)], 320, (240, 320)),
        ([(640, 480)], 320, (320, 240)),
        ([(1536, 2048)], 640, (480, 640)),
        ([(30, 40)], 640, (32, 40)),
        ([(100, 4000)], 400, (32, 400)),
        # The medians are 300 and 500.
        ([(100, 500), (300, 900), (400, 200)], 640, (300, 500)),
        # The medians are 250 and 650; the factor is 640 / 650.
        ([(200, 600), (300, 700)], 640, (246, 640)),
    ],
)
def test_median_size_is_reduced_to_the_longest_side(
    tmp_path: Path, sizes: list[tuple[int, int]], longest_side: int, expected: tuple[int, int]
) -> None:
    images = [image(number, *size) for number, size in enumerate(sizes)]
    assert resolved(tmp_path, images, f"longest_side={longest_side}") == expected


def test_only_normal_images_outside_of_the_test_split_count(tmp_path: Path) -> None:
    images = [
        image(0, 100, 200),
        image(1, 120, 240, split="validation"),
        image(2, 140, 260, split="validation"),
        image(3, 999, 999, split="test"),
        image(4, 999, 999, label="anomalous"),
        image(5, 999, 999, label=None),
        image(6, 999, 999, split="archive"),
    ]
    assert resolved(tmp_path, images, "longest_side=640") == (120, 240)


def test_plain_folders_count_as_a_whole(tmp_path: Path) -> None:
    images = [image(0, 100, 200, split="archive"), image(1, 999, 999, split="archive", label=None)]
    assert resolved(tmp_path, images) == (100, 200)


def test_all_images_count_if_none_is_normal(tmp_path: Path) -> None:
    images = [image(0, 100, 200, label=None, split="archive"), image(1, 100, 200, label="anomalous", split="test")]
    assert resolved(tmp_path, images) == (100, 200)


def test_categories_have_their_own_sizes_and_the_draw_does_not_matter(tmp_path: Path) -> None:
    other = ScoredImage("0.png", b"0", None, split="train", category="other", size=(64, 50))
    archive = write_archive(tmp_path, [image(0, 100, 200), image(1, 110, 220), image(2, 150, 240), other])
    manifest = read_manifest(archive)
    config = small_config("image_size=null", "normal_images.most=1")
    assert with_image_size(config, archive, manifest, "other").decoded_size == (50, 64)
    assert with_image_size(config, archive, manifest, "part").decoded_size == (110, 220)


def test_given_size_is_kept(tmp_path: Path) -> None:
    assert resolved(tmp_path, [image(0, 480, 640)], "image_size=[96, 2048]", "longest_side=64") == (96, 2048)


def test_other_options_and_origin_are_kept(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, [image(0, 60, 80)])
    config = small_config("image_size=null").with_origin("my.yaml")
    found = with_image_size(config, archive, read_manifest(archive), "part")
    assert found.origin == "my.yaml"
    assert config.image_size is None
    assert found.model_copy(update={"image_size": None}) == config
    assert FitConfig.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_unresolved_size_and_unknown_category_are_errors(tmp_path: Path) -> None:
    config = small_config("image_size=null").with_origin("my.yaml")
    with pytest.raises(ConfigError, match=r"my\.yaml: image_size is not set"):
        _ = config.decoded_size
    archive = write_archive(tmp_path, [image(0, 60, 80)])
    with pytest.raises(ArchiveError, match="category 'gone' has no images"):
        with_image_size(config, archive, read_manifest(archive), "gone")


@given(SIDES, SIDES, st.integers(32, 4096))
def test_fitted_size_keeps_the_aspect_ratio_and_never_enlarges(height: int, width: int, longest: int) -> None:
    found = fitted_size((height, width), longest)
    assert fitted_size((width, height), longest) == found[::-1]
    factor = min(1.0, longest / max(height, width))
    for side, own in zip(found, (height, width), strict=True):
        assert 1 <= side <= min(own, longest)
        assert abs(side - own * factor) <= 0.5 or side == 1


@given(SIDES, SIDES, st.integers(32, 4096))
def test_fitted_size_has_a_minimum(height: int, width: int, longest: int) -> None:
    plain = fitted_size((height, width), longest)
    assert fitted_size((height, width), longest, 32) == (max(32, plain[0]), max(32, plain[1]))


def test_images_are_reduced_and_never_enlarged() -> None:
    assert reduced(np.zeros((1000, 500, 3), dtype=np.uint8), 640).shape == (640, 320, 3)
    assert reduced(np.zeros((300, 200, 3), dtype=np.uint8), 640).shape == (300, 200, 3)


@pytest.mark.parametrize("image_size", ["null", "[96, 128]"])
def test_the_images_themselves_decide_whether_a_category_is_large(tmp_path: Path, image_size: str) -> None:
    """Their median size, not that of the decoded images."""
    archive = write_archive(tmp_path, [image(0, 1200, 1600), image(1, 1600, 1600), image(2, 300, 400)])
    for pixels, experts in ((1200 * 1600, ("patch", "patch_large")), (1200 * 1600 + 1, ("patch",))):
        config = small_config(
            f"image_size={image_size}", "expert_set=patch-large", f"large_images.pixels={pixels}", "longest_side=64"
        )
        found = with_image_size(config, archive, read_manifest(archive), "part")
        assert found.chosen_experts == experts
        assert found.decoded_size == ((48, 64) if image_size == "null" else (96, 128))
        assert with_image_size(found, archive, read_manifest(archive), "part") == found
