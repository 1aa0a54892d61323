from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tuning import COLOURS, coloured_crop, coloured_crops, sorted_crops

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import FitError, StoreError
from uniad_ray.perception.objects.crops import square_crop
from uniad_ray.training.clip.labelled_crops import LabelledCrops, encode_crop, read_crop_folder

CLASSES = tuple(COLOURS)


def test_crops_round_trip(store_root: str) -> None:
    crops = LabelledCrops(coloured_crops().crops, {"unsure": 3})
    place = Location.parse(store_root) / "crops.safetensors"
    crops.write(place)
    found = LabelledCrops.read(place)
    assert found == crops
    assert found.digest == crops.digest
    np.testing.assert_array_equal(found.crops[0].pixels(), crops.crops[0].pixels())
    place.write_bytes(place.read_bytes()[:-3])
    with pytest.raises(StoreError, match="or corrupt"):
        LabelledCrops.read(place)


def test_empty_crops_round_trip(tmp_path: Path) -> None:
    place = Location.parse(tmp_path / "crops.safetensors")
    LabelledCrops([], {"unsure": 1}).write(place)
    assert LabelledCrops.read(place) == LabelledCrops([], {"unsure": 1})


def test_at_most_limits_crops_per_class_and_category() -> None:
    one, other = coloured_crops(6).crops, coloured_crops(2, "lids").crops
    found = LabelledCrops.at_most([*one, *other], 4, {"unsure": 2, "of no class": 0}, seed=0)
    counts = {(crop.category, crop.label): 0 for crop in [*one, *other]}
    for crop in found.crops:
        counts[crop.category, crop.label] += 1
    assert counts == {(name, label): most for name, most in (("trays", 4), ("lids", 2)) for label in range(3)}
    assert found.left_out == {"unsure": 2, "surplus": 6}
    assert LabelledCrops.at_most([*other, *reversed(one)], 4, {"unsure": 2}, seed=0) == found
    assert LabelledCrops.at_most([*one, *other], 4, {}, seed=1).digest != found.digest


def test_crops_of_several_sources_are_joined() -> None:
    parts = [LabelledCrops(coloured_crops(2).crops, {"a": 1}), LabelledCrops(coloured_crops(1, "lids").crops, {"a": 2})]
    found = LabelledCrops.joined(parts)
    assert (len(found.crops), found.left_out) == (9, {"a": 3})
    assert [crop.key for crop in found.crops] == sorted(crop.key for crop in found.crops)


def test_folder_of_sorted_crops_is_read(tmp_path: Path) -> None:
    sorted_crops(tmp_path, images=3)
    (tmp_path / "red/.hidden").write_bytes(b"")
    Image.fromarray(coloured_crop("blue", 1, 20)[:10]).save(tmp_path / "blue/wide.jpg", quality=95)
    found = read_crop_folder(tmp_path, CLASSES, side=8, padding=0.1)
    assert len(found.crops) == 10
    assert [crop.label for crop in found.crops] == [2, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    expected = square_crop(coloured_crop("blue", 0, 20), size=8, padding=0.1)
    np.testing.assert_array_equal(found.crops[0].pixels(), expected)
    assert found.crops[3].pixels().shape == (8, 8, 3)
    # A wide crop is padded in black above and below, not stretched.
    assert found.crops[3].pixels()[0].max() < 40


def test_invalid_crop_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="no such folder; sort crops into folders named by their classes"):
        read_crop_folder(tmp_path / "none", CLASSES, side=8, padding=0.1)
    (tmp_path / "rde").mkdir()
    with pytest.raises(FitError, match="rde: not the name of a class; the classes are red, green, blue"):
        read_crop_folder(tmp_path, CLASSES, side=8, padding=0.1)
    (tmp_path / "rde").rename(tmp_path / "red")
    (tmp_path / "red/0.png").write_bytes(b"text")
    with pytest.raises(FitError, match=r"0\.png: .*; fix or remove it"):
        read_crop_folder(tmp_path, CLASSES, side=8, padding=0.1)
    Image.fromarray(np.zeros((4, 4, 4), dtype=np.uint8), "RGBA").save(tmp_path / "red/0.png")
    with pytest.raises(FitError, match="has transparency; paint the background black"):
        read_crop_folder(tmp_path, CLASSES, side=8, padding=0.1)


def test_crop_encoding_is_lossless() -> None:
    crop = coloured_crop("red", 3)
    assert encode_crop(crop) == encode_crop(crop.copy())
    (found, *_) = coloured_crops(1).crops
    assert found.pixels().dtype == np.uint8
