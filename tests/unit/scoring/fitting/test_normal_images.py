from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import write_archive
from support.scene_images import archive_rows, scene_images

from uniad_ray.archive.images import decode_image
from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.normal_images import NormalImagesConfig
from uniad_ray.config.region import RegionMask
from uniad_ray.perception.region import Region
from uniad_ray.scoring.fitting.altered_copies import altered
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
from uniad_ray.scoring.fitting.twins import first_images

SIZE = 64
COUNT = 8


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Location:
    images = scene_images(COUNT, SIZE)
    # One image is repeated.
    return write_archive(tmp_path_factory.mktemp("normal_images"), archive_rows([*images, images[0]]))


def normal_images(archive: Location, **choice: int) -> ArchiveNormalImages:
    return ArchiveNormalImages(archive, read_manifest(archive), "part", (SIZE, SIZE), NormalImagesConfig(**choice))


def keys(found: ArchiveNormalImages) -> set[str]:
    return {row.row_key for row in found.rows if row.copy_of is None}


def test_all_images_by_default(archive: Location) -> None:
    assert len(normal_images(archive).rows) == COUNT + 1
    assert not normal_images(archive).has_copies


def test_larger_draw_contains_smaller_draw(archive: Location) -> None:
    drawn = [normal_images(archive, most=most) for most in (1, 2, 4, COUNT, 100)]
    assert [len(keys(each)) for each in drawn] == [1, 2, 4, COUNT, COUNT]
    for smaller, larger in itertools.pairwise(drawn):
        assert keys(smaller) <= keys(larger)
    for each in drawn:
        originals = [row for row in each.rows if row.copy_of is None]
        assert len({row.image_id for row in originals}) == len(originals)
    assert len({frozenset(keys(normal_images(archive, most=3, draw=draw))) for draw in range(8)}) > 4


def test_copies_follow_their_images(archive: Location) -> None:
    found = normal_images(archive, most=2, fewest=3)
    assert found.has_copies
    assert [row.copy_of is None for row in found.rows] == [True, True, *[False] * 4]
    images = dict(found.read(range(6)))
    places = {row.row_key: index for index, row in enumerate(found.rows)}
    for index, row in enumerate(found.rows[2:], start=2):
        original = images[places[str(row.copy_of)]]
        np.testing.assert_array_equal(images[index], altered(original, row.row_key))
    assert set(found.by_source_uri({found.rows[3].row_key: "odd"}).values()) == {"odd"}


def test_copies_and_twins_depend_on_nothing_outside_of_the_region(tmp_path: Path) -> None:
    first, second = scene_images(2, SIZE)
    mask = np.ones((SIZE, SIZE), dtype=bool)
    mask[:, 48:] = False
    pixels = decode_image(archive_rows([first])[0].image, (SIZE, SIZE))
    buffer = io.BytesIO()
    Image.fromarray(np.where(mask[..., None], pixels, np.uint8(255))).save(buffer, "PNG")
    rows = [*archive_rows([first, second]), replace(archive_rows([first])[0], name="stamped", image=buffer.getvalue())]
    root = write_archive(tmp_path, rows)
    region = Region(RegionMask.of(mask), (SIZE, SIZE))
    choice = NormalImagesConfig(fewest=6)
    found, whole = (
        ArchiveNormalImages(root, read_manifest(root), "part", (SIZE, SIZE), choice, one) for one in (region, None)
    )
    assert found.has_copies
    images = dict(found.read(range(len(found.rows))))
    others = dict(whole.read(range(3)))
    places = {row.row_key: index for index, row in enumerate(found.rows)}
    for index in range(3):
        np.testing.assert_array_equal(images[index][region.inside], others[index][region.inside])
    for index, row in enumerate(found.rows[3:], start=3):
        np.testing.assert_array_equal(images[index], altered(images[places[str(row.copy_of)]], row.row_key))
    pairs = [(one, other) for one in range(3) for other in range(one) if np.array_equal(images[one], images[other])]
    assert len(pairs) == 1
    assert not any(np.array_equal(others[one], others[other]) for one, other in pairs)
    assert [len([index for index in first_images(one) if index < 3]) for one in (found, whole)] == [2, 3]


def test_corrupt_image_has_no_copies(tmp_path: Path) -> None:
    (row,) = archive_rows(scene_images(1, SIZE))
    broken = type(row)(row.name, row.image[:200], None, split="train", size=row.size)
    found = normal_images(write_archive(tmp_path, [broken]))
    assert list(found.read(range(len(found.rows)))) == []
    assert len(found.skipped) == 1
