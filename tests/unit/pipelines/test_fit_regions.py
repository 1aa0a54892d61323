"""Regions given to a fit: which category, and of what size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.runs import write_archive
from support.scene_images import archive_rows, scene_images
from support.trees import write

from uniad_ray.archive.image_size import with_image_size
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.pipelines.fit.job import _with_regions


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Location:
    images = archive_rows(scene_images(2, 64))
    other = [replace(row, category="other") for row in archive_rows(scene_images(2, 64, seed=21))]
    return write_archive(tmp_path_factory.mktemp("regions") / "archive", [*images, *other])


def polygons(folder: Path, width: int = 64) -> str:
    path = folder / f"{width}.yaml"
    write(path, f"width: {width}\nheight: 64\nexclude: [[[0, 0], [20, 0], [20, 20]]]\n".encode())
    return str(path)


def regions(archive: Location, categories: list[str], *given: str) -> FitConfig:
    return _with_regions(load_config("embedded"), archive, read_manifest(archive), categories, given)


def test_each_category_has_its_own_region(archive: Location, tmp_path: Path) -> None:
    path = polygons(tmp_path)
    assert regions(archive, ["other", "part"]).regions == {}
    assert list(regions(archive, ["part"], path).regions) == ["part"]
    config = regions(archive, ["other", "part"], f"part={path}")
    manifest = read_manifest(archive)
    assert with_image_size(config, archive, manifest, "other").region is None
    own = with_image_size(config, archive, manifest, "part")
    assert own.region is not None
    assert own.region.pixels.sum() < 64 * 64
    assert own.image_size == (64, 64)
    again = FitConfig.model_validate(own.model_dump(mode="json", by_alias=True))
    assert np.array_equal(again.regions["part"].pixels, own.region.pixels)


def test_two_regions_of_a_category_are_refused(archive: Location, tmp_path: Path) -> None:
    path = polygons(tmp_path)
    with pytest.raises(ConfigError, match="part has two regions; draw both into one file"):
        regions(archive, ["part"], path, f"part={path}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{64}", "write CATEGORY=FILE with a category of other, part"),
        ("lid={64}", "write CATEGORY=FILE with a category of other, part"),
        ("part={32}", "the region of part has 32 x 64 pixels, its images 64 x 64; draw the region on one of them"),
        ("part=none.png", r"none\.png: the region cannot be read"),
    ],
)
def test_wrong_regions_are_one_line(archive: Location, tmp_path: Path, given: str, said: str) -> None:
    text = given.replace("{64}", polygons(tmp_path)).replace("{32}", polygons(tmp_path, 32))
    with pytest.raises(ConfigError, match=said) as raised:
        regions(archive, ["other", "part"], text)
    assert "\n" not in str(raised.value)
