from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from uniad_ray.config.loading import load_config, profile_names
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.objects.names import OTHER, PartNamer, PartNamerConfig, names_overrides, segment_shapes
from uniad_ray.perception.segments import Segments

SIDE = 48
# Height, width and appearance of the objects.
TRAY, BOLT, NUT = (20, 20), (4, 16), (6, 6)
LOOKS = {TRAY: [1.0, 0.0, 0.0], BOLT: [0.0, 1.0, 0.0], NUT: [0.0, 0.0, 1.0]}


def perception(*images: list[tuple[int, int]], first: int = 0) -> Perception:
    segments, vectors = [], []
    for number, kinds in enumerate(images):
        draw = np.random.default_rng(first + number)
        masks = np.zeros((len(kinds), SIDE, SIDE), dtype=bool)
        for mask, (height, width) in zip(masks, kinds, strict=True):
            row, column = draw.integers(0, SIDE - 20, 2)
            mask[row : row + height, column : column + width] = True
        found = Segments.of(masks)
        looks = sorted(kinds, key=lambda kind: -kind[0] * kind[1])
        segments.append(found)
        noise = draw.normal(size=(len(kinds), 3)) * 0.02
        vectors.append((np.array([LOOKS[kind] for kind in looks]).reshape(-1, 3) + noise).astype(np.float32))
    return Perception(
        [f"{first + number:032x}" for number in range(len(images))],
        np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8),
        segments={"objects/segments": segments},
        vectors={"look/vectors": vectors},
    )


def namer(**changes: Any) -> PartNamer:
    options = {"segments": "objects/segments", "vectors": ["look/vectors"]}
    return PartNamer("named", PartNamerConfig.model_validate(options | changes), "cpu")


NORMAL = [[TRAY, BOLT, BOLT] + [NUT] * int(count) for count in np.random.default_rng(5).poisson(1.0, 30)]


def fitted(**changes: Any) -> PartNamer:
    found = namer(**changes)
    found.fit(lambda: [perception(*NORMAL[:12]), perception(*NORMAL[12:], first=12)])
    return found


def names(found: PartNamer, *kinds: tuple[int, int]) -> tuple[str, ...]:
    return found.extract(perception(list(kinds), first=99))["named/segments"][0].names


def test_regular_kinds_are_named_largest_first() -> None:
    assert names(fitted(), TRAY, BOLT, BOLT, NUT) == ("part-1", "part-2", "part-2", OTHER)


def test_the_user_may_give_better_names() -> None:
    found = fitted(names={"part-1": "tray", "part-2": "bolt"})

    assert names(found, NUT, TRAY, BOLT) == ("tray", "bolt", OTHER)


def test_namers_may_have_different_prefixes() -> None:
    found = fitted(prefix="piece", names={"piece-1": "tray"})

    assert names(found, NUT, TRAY, BOLT) == ("tray", "piece-2", OTHER)


def test_names_may_be_exchanged() -> None:
    found = fitted(names={"part-1": "part-2", "part-2": "part-1", OTHER: "clutter", "part-3": OTHER})

    assert names(found, NUT, TRAY, BOLT) == ("part-2", "part-1", "clutter")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"part-1": ""}, "is not a class name"),
        ({"part-1": "a:b"}, "is not a class name"),
        ({"part-1": "bolt", "part-2": "bolt"}, "two classes have the same name, rename one: bolt, bolt, other"),
        ({"part-1": "other"}, "two classes have the same name"),
        ({"part-1": "part-2"}, "two classes have the same name"),
        ({"bolt": "part-1"}, "names has unknown kinds bolt; use part-1, part-2, ... or other"),
        ({"part-0": "bolt"}, "names has unknown kinds part-0"),
        ({"piece-1": "bolt"}, "names has unknown kinds piece-1; use part-1"),
    ],
)
def test_names_must_be_usable_and_distinct(given: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        namer(names=given)


def test_an_image_without_objects_has_no_names() -> None:
    assert names(fitted()) == ()


def test_all_objects_are_other_without_normal_objects() -> None:
    found, again = namer(), namer()
    found.fit(lambda: [perception([], [])])
    again.restore(found.state())

    assert names(found, TRAY, NUT) == names(again, TRAY, NUT) == (OTHER, OTHER)


def test_the_order_of_images_does_not_matter() -> None:
    batches = [perception(kinds, first=number) for number, kinds in enumerate(NORMAL)]
    one, other = namer(), namer()
    one.fit(lambda: batches)
    other.fit(lambda: reversed(batches))

    assert one.state().document == other.state().document
    for name, array in one.state().arrays.items():
        np.testing.assert_array_equal(array, other.state().arrays[name])


def test_a_restored_namer_gives_the_same_names() -> None:
    again = namer()
    again.restore(fitted().state())

    assert names(again, TRAY, BOLT, NUT) == names(fitted(), TRAY, BOLT, NUT)


def test_fit_needs_two_valid_images() -> None:
    for images in ([], [perception([TRAY])]):
        with pytest.raises(FitError, match=f"at least 2 normal images are needed, not {len(images)}; add some"):
            namer().fit(lambda images=images: images)
    spoilt = perception([TRAY], [TRAY])
    spoilt.vectors["look/vectors"][1][:] = np.nan
    with pytest.raises(FitError, match=r"image 0{31}1 has vectors that are not finite"):
        namer().fit(lambda: [spoilt])
    with pytest.raises(FitError, match="not fitted"):
        namer().extract(perception([TRAY]))


def test_invalid_state_is_rejected() -> None:
    state = fitted().state()
    shorter = {**state.arrays, "kinds": state.arrays["kinds"][1:]}
    for odd in (State(), State(arrays=shorter, document=state.document)):
        with pytest.raises(BundleError, match="no object kinds"):
            namer().restore(odd)


def test_shapes_are_area_and_axes() -> None:
    masks = np.zeros((1, 100, 100), dtype=bool)
    masks[0, 10:30, 20:80] = True

    area, long, short = np.exp(segment_shapes(Segments.of(masks))[0])

    # A uniform distribution of width s has the standard deviation s / sqrt(12).
    assert (area, long, short) == pytest.approx((0.12, 0.6 / np.sqrt(12), 0.2 / np.sqrt(12)), rel=1e-3)


def test_axes_do_not_depend_on_the_orientation_in_a_rectangular_image() -> None:
    masks = np.zeros((2, 50, 200), dtype=bool)
    masks[0, 5:45, 10:20] = True
    masks[1, 20:30, 100:140] = True

    upright, lying = np.exp(segment_shapes(Segments.of(masks)))

    # The root of the area is 100 pixels.
    assert upright == pytest.approx((0.04, 0.4 / np.sqrt(12), 0.1 / np.sqrt(12)), rel=1e-3)
    assert lying == pytest.approx(upright, rel=1e-6)


@pytest.mark.parametrize("profile", profile_names())
def test_names_file_applies_to_each_profile(tmp_path: Path, profile: str) -> None:
    file = tmp_path / "names.yaml"
    file.write_text("part-1: tray\npart-2: 2\n")
    objects = load_config(profile, names_overrides(str(file))).extractors["objects"]
    assert objects.class_path == f"{PartNamer.__module__}:{PartNamer.__name__}"
    assert PartNamerConfig.model_validate(objects.config).names == {"part-1": "tray", "part-2": "2"}


def test_names_file_may_name_the_kinds_of_both_namers(tmp_path: Path) -> None:
    file = tmp_path / "names.yaml"
    file.write_text("piece-1: tray\npart-1: bolt\nother: clutter\n")

    extractors = load_config("embedded", names_overrides(str(file))).extractors

    assert extractors["objects"].config["names"] == {"part-1": "bolt", "other": "clutter"}
    assert extractors["rare_objects"].config["names"] == {"piece-1": "tray"}
