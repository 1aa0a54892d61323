"""Value ranges of captions are found once for a sidecar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.image_bytes import encode
from support.runs import ScoredImage, write_archive

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import SidecarError
from uniad_ray.sidecars.caption_ranges import caption_ranges


def image(name: str, value: int, dtype: type[np.generic] = np.uint16) -> ScoredImage:
    pixels = np.linspace(0, value, 48 * 48).reshape(48, 48).astype(dtype)
    return ScoredImage(name, encode(pixels, "PNG"), None, category=name.split("/")[0], split="train")


def ranges(sidecar: Path, folder: Path, *images: ScoredImage) -> dict[str, ValueRange | None]:
    archive = write_archive(folder, list(images))
    categories = {one.category for one in images}
    return caption_ranges(Location.parse(sidecar), archive, read_manifest(archive), categories)


def test_range_stays_when_brighter_images_follow(tmp_path: Path) -> None:
    sidecar, dark = tmp_path / "captions", image("part/0.png", 1000)
    assert ranges(sidecar, tmp_path / "a", dark) == {"part": (0, 1023)}
    bright = image("part/1.png", 60_000)
    assert ranges(sidecar, tmp_path / "b", dark, bright) == {"part": (0, 1023)}
    # A new sidecar has its own.
    assert ranges(tmp_path / "new", tmp_path / "c", dark, bright) == {"part": (0, 65535)}


def test_new_categories_are_added(tmp_path: Path) -> None:
    sidecar, dark = tmp_path / "captions", image("part/0.png", 1000)
    ranges(sidecar, tmp_path / "a", dark)
    other = image("lid/0.png", 4000)
    assert ranges(sidecar, tmp_path / "b", other) == {"lid": (0, 4095)}
    assert ranges(sidecar, tmp_path / "c", image("part/0.png", 9), image("lid/0.png", 9)) == {
        "lid": (0, 4095),
        "part": (0, 1023),
    }


def test_eight_bit_images_have_no_range_until_others_follow(tmp_path: Path) -> None:
    sidecar, plain = tmp_path / "captions", image("part/0.png", 200, np.uint8)
    assert ranges(sidecar, tmp_path / "a", plain) == {"part": None}
    assert ranges(sidecar, tmp_path / "b", plain, image("part/1.png", 4000)) == {"part": (0, 4095)}


def test_corrupt_ranges_are_one_line(tmp_path: Path) -> None:
    sidecar = tmp_path / "captions"
    sidecar.mkdir()
    (sidecar / "value_ranges.json").write_text('{"value_ranges": {"part": [9, 1]}}')
    with pytest.raises(SidecarError, match=r"value_ranges\.json: corrupt"):
        ranges(sidecar, tmp_path / "a", image("part/0.png", 1000))
