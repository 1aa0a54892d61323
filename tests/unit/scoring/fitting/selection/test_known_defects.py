from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import ScoredImage, write_archive
from support.scene_images import archive_rows, scene_images

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefects, OriginalsOfDefects

SIZE = 64


def rows(split: str, count: int, first: int, **changes: object) -> list[ScoredImage]:
    """Images of one split, named from a number on."""
    images = scene_images(first + count, SIZE)[first:]
    return [
        dataclasses.replace(row, name=f"{split}-{first + number:03d}.png", **changes)  # type: ignore[arg-type]
        for number, row in enumerate(archive_rows(images, split=split))
    ]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Three normal images, and anomalous ones of the splits validation and test."""
    return write_archive(
        tmp_path_factory.mktemp("known"),
        [
            *rows("train", 3, 0),
            *rows("validation", 2, 3),
            *rows("validation", 3, 5, label="anomalous", anomaly_type="logical"),
            *rows("test", 4, 8, label="anomalous"),
        ],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of `part`, one of them structural, and one of another category."""
    for place in ("part/structural_anomalies/a.png", "part/b.png", "other/c.png"):
        path = tmp_path / "known" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (len(place), 9, 9)).save(path)
    return tmp_path / "known"


def read(archive: Location, folder: Path | None = None, *categories: str) -> KnownDefects:
    place = None if folder is None else Location.parse(folder)
    return KnownDefects.read(archive, read_manifest(archive), "part", (SIZE, SIZE), place, categories or ("part",))


def test_anomalous_images_of_the_validation_split_are_read(archive: Location) -> None:
    found = read(archive)

    assert [one.family for one in found.defects] == ["known_logical"] * 3
    assert all(one.image.shape == (SIZE, SIZE, 3) for one in found.defects)


def test_a_folder_has_a_folder_for_each_category(archive: Location, folder: Path) -> None:
    several = read(archive, folder, "part", "other")
    single = read(archive, folder / "part")

    assert sorted(one.family for one in several.defects) == ["known", *["known_logical"] * 3, "known_structural"]
    assert sorted(one.family for one in single.defects) == sorted(one.family for one in several.defects)


def test_folder_without_images_of_the_category_is_an_error(archive: Location, folder: Path) -> None:
    (folder / "part").rename(folder / "parts")

    with pytest.raises(ArchiveError, match=r"known/part: no images of known defects"):
        read(archive, folder, "part", "other")


def test_a_broken_file_costs_itself_alone(archive: Location, folder: Path) -> None:
    (folder / "part/b.png").write_bytes(b"no image")

    found = read(archive, folder, "part", "other")

    assert len(found) == 4
    assert list(found.skipped) == [str(folder / "part/b.png")]


def test_many_are_reduced_to_a_fixed_sample(archive: Location, tmp_path: Path) -> None:
    for number in range(80):
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(buffer, "PNG")
        (tmp_path / f"{number:03d}.png").write_bytes(buffer.getvalue())

    first, second = read(archive, tmp_path), read(archive, tmp_path)

    assert len(first) == 64
    assert [one.row_key for one in first.defects] == [one.row_key for one in second.defects]


def test_files_of_defects_can_be_read_again(archive: Location, folder: Path) -> None:
    """Those of the archive, and those of the folder."""
    found = read(archive, folder, "part", "other")
    originals = OriginalsOfDefects(found.defects)
    assert len(originals) == len(found) == 5
    for one in found.defects:
        image = Image.open(io.BytesIO(originals[one.row_key])).convert("RGB")
        np.testing.assert_array_equal(image, one.image)
    assert not OriginalsOfDefects([dataclasses.replace(found.defects[0], file=None)])
