from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import combinations, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage

from uniad_ray.archive.scenes import (
    Colour,
    LogicalDefect,
    Part,
    PartKind,
    SceneConfig,
    SceneRules,
    StructuralDefect,
    View,
    defect_masks,
    draw_logical,
    draw_normal,
    draw_scene,
    draw_structural,
    iterate_files,
    part_masks,
    render,
)
from uniad_ray.archive.scenes.shapes import nominal_area

RULES = SceneRules()
SMALL = SceneConfig(image_size=64, train=2, validation=1, test_good=2, logical=6, structural=5, seed=3)

# S . N      a hand-made normal tray: washers in the middle row, bolt left of nut, pin above block
NORMAL = (
    Part(PartKind.BOLT, Colour.STEEL, (0, 0)),
    Part(PartKind.NUT, Colour.STEEL, (0, 2)),
    Part(PartKind.WASHER, Colour.BRASS, (1, 0)),
    Part(PartKind.WASHER, Colour.BRASS, (1, 2)),
    Part(PartKind.PIN, Colour.RED, (1, 1)),
    Part(PartKind.BLOCK, Colour.RED, (2, 1)),
)
BOLT, NUT, WASHER, RIGHT_WASHER, PIN, BLOCK = range(6)


def changed(index: int, **values: object) -> tuple[Part, ...]:
    return (*NORMAL[:index], replace(NORMAL[index], **values), *NORMAL[index + 1 :])  # type: ignore[arg-type]


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


# ------------------------------------------------------------------------------------------------------------ rules


def test_hand_made_tray_obeys_every_rule() -> None:
    assert RULES.broken(NORMAL) == []


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (NORMAL[1:], "bolt_count"),
        ((*NORMAL, replace(NORMAL[BOLT], cell=(2, 0))), "bolt_count"),
        (changed(NUT, cell=(0, 1))[:1] + NORMAL[2:], "nut_count"),
        (NORMAL[:RIGHT_WASHER] + NORMAL[RIGHT_WASHER + 1 :], "washer_count"),
        ((*NORMAL, replace(NORMAL[PIN], cell=(0, 1))), "pin_count"),
        (NORMAL[:BLOCK], "block_count"),
        (changed(BLOCK, cell=(1, 1)), "one_part_per_cell"),
        (changed(NUT, colour=Colour.BRASS), "metal_pair"),
        (changed(PIN, colour=Colour.BLUE), "plastic_pair"),
        (changed(WASHER, colour=Colour.STEEL), "washer_colour"),
        (changed(WASHER, cell=(2, 0)), "washer_places"),
        (changed(WASHER, cell=(2, 2)), "washer_places"),
        (changed(BOLT, cell=(0, 1))[:1] + changed(NUT, cell=(2, 0))[1:], "nut_not_left_of_bolt"),
        (changed(BLOCK, cell=(0, 1)), "block_not_above_pin"),
    ],
)
def test_each_rule_is_broken_alone(parts: tuple[Part, ...], name: str) -> None:
    assert RULES.broken(parts) == [name]


def test_wrong_colours_are_named() -> None:
    assert "bolt_nut_washer_colours" in RULES.broken(changed(NUT, colour=Colour.RED))
    assert "pin_block_colours" in RULES.broken(changed(PIN, colour=Colour.STEEL))


def test_washer_in_an_inner_column_breaks_symmetry() -> None:
    parts = changed(WASHER, cell=(1, 1))
    parts = (*parts[:PIN], replace(parts[PIN], cell=(0, 1)), *parts[PIN + 1 :])
    assert RULES.broken(parts) == ["washer_places"]


def test_description_has_one_sentence_per_rule() -> None:
    sentences = RULES.describe()
    assert len(set(sentences)) == len(RULES.rules) == len({rule.name for rule in RULES.rules})
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    assert "There are exactly 2 washers." in sentences
    assert "A nut never lies further left than a bolt." in sentences


def test_looks_normal_locally_refuses_new_neighbours() -> None:
    assert RULES.looks_normal_locally(NORMAL)
    # A red pin and a blue block occur in normal trays, but never as neighbours.
    assert not RULES.looks_normal_locally(changed(PIN, colour=Colour.BLUE))
    apart = changed(PIN, colour=Colour.BLUE, cell=(0, 1))
    assert RULES.broken(apart) == ["plastic_pair"]
    assert RULES.looks_normal_locally(apart)
    # No normal tray has a washer in the middle column, nor two bolts side by side.
    assert not RULES.looks_normal_locally((Part(PartKind.WASHER, Colour.STEEL, (0, 1)),))
    assert not RULES.looks_normal_locally((NORMAL[BOLT], replace(NORMAL[BOLT], cell=(0, 1))))
    assert RULES.looks_normal_locally((NORMAL[BOLT], replace(NORMAL[BOLT], cell=(2, 0))))


# ---------------------------------------------------------------------------------------------------------- layouts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_normal_and_structural_scenes_break_no_rule(seed: int) -> None:
    normal = draw_normal(RULES, np.random.default_rng(seed))
    kind = tuple(StructuralDefect)[seed % len(StructuralDefect)]
    damaged = draw_structural(RULES, kind, np.random.default_rng(seed))
    assert RULES.violations(normal) == RULES.violations(damaged) == []
    assert normal.damage is None
    assert normal.logical is None
    assert damaged.damage is not None
    assert damaged.damage.kind is kind
    assert replace(damaged, damage=None) == normal


EXPECTED_RULES = {
    LogicalDefect.MISSING: {f"{kind}_count" for kind in PartKind},
    LogicalDefect.EXTRA: {f"{kind}_count" for kind in PartKind},
    LogicalDefect.SWAPPED: {"washer_places", "nut_not_left_of_bolt", "block_not_above_pin"},
    LogicalDefect.WRONG_PAIR: {"metal_pair", "plastic_pair"},
    LogicalDefect.LEFT_RIGHT: {"washer_colour"},
    LogicalDefect.WRONG_CELL: {"washer_places", "nut_not_left_of_bolt", "block_not_above_pin"},
}


@pytest.mark.parametrize("kind", list(LogicalDefect))
def test_logical_scenes_break_exactly_one_rule(kind: LogicalDefect) -> None:
    seen: set[str] = set()
    for seed in range(40):
        scene = draw_logical(RULES, kind, np.random.default_rng(seed))
        broken = RULES.violations(scene)
        assert len(broken) == 1
        seen.update(broken)
        assert scene.logical is kind
        assert scene.damage is None
        assert len(scene.parts) == 6 + (kind is LogicalDefect.EXTRA) - (kind is LogicalDefect.MISSING)
        assert bool(scene.vacancies) is (kind is LogicalDefect.MISSING)
        assert bool(scene.suspects) is (kind is not LogicalDefect.MISSING)
        assert set(scene.vacancies) <= set(RULES.empty_cells(scene.parts))
        if kind is LogicalDefect.EXTRA:
            for index in scene.suspects:
                assert not RULES.broken(scene.parts[:index] + scene.parts[index + 1 :])
    assert seen <= EXPECTED_RULES[kind]
    assert len(seen) > 1 or len(EXPECTED_RULES[kind]) == 1


def test_logical_anomalies_look_normal_locally() -> None:
    places: set[tuple[object, ...]] = set()
    pairs: set[tuple[object, ...]] = set()

    def neighbours(parts: tuple[Part, ...]) -> set[tuple[object, ...]]:
        found: set[tuple[object, ...]] = set()
        for one, two in combinations(sorted(parts, key=lambda part: part.cell), 2):
            step = (two.cell[0] - one.cell[0], two.cell[1] - one.cell[1])
            if max(map(abs, step)) <= 1:
                found.add((one.kind, one.colour, two.kind, two.colour, step))
        return found

    for seed in range(1500):
        parts = draw_normal(RULES, np.random.default_rng([1, seed])).parts
        places.update((part.kind, part.colour, part.cell) for part in parts)
        pairs.update(neighbours(parts))
    for kind in LogicalDefect:
        for seed in range(25):
            parts = draw_logical(RULES, kind, np.random.default_rng([2, seed])).parts
            assert {(part.kind, part.colour, part.cell) for part in parts} <= places
            assert neighbours(parts) <= pairs


def test_normal_trays_vary_in_cells_and_angles() -> None:
    scenes = [draw_normal(RULES, np.random.default_rng(seed)) for seed in range(100)]
    empty = [set(RULES.empty_cells(scene.parts)) for scene in scenes]
    assert all(len(cells) == 3 for cells in empty)
    assert set.union(*empty) == set(RULES.cells)
    for kind in (PartKind.BOLT, PartKind.PIN, PartKind.BLOCK):
        angles = [part.angle for scene in scenes for part in scene.parts if part.kind is kind]
        upright = [45 < angle < 135 for angle in angles]
        assert any(upright)
        assert not all(upright)


def test_impossible_rules_are_reported() -> None:
    with pytest.raises(ValueError, match="6 parts do not fit into 4 cells"):
        draw_normal(SceneRules(rows=2, columns=2), np.random.default_rng(0))


# -------------------------------------------------------------------------------------------------------- rendering


@pytest.mark.parametrize("size", [128, 256])
def test_part_masks_match_area_and_place(size: int) -> None:
    scene = draw_normal(RULES, np.random.default_rng(5))
    scene = replace(scene, view=View())
    masks = part_masks(scene, RULES, size)
    assert np.sum(masks, axis=0).max() == 1
    unit = (size / 256) ** 2
    for part, mask in zip(scene.parts, masks, strict=True):
        assert mask.sum() == pytest.approx(nominal_area(part.kind) * part.scale**2 * unit, rel=0.05)
        row, column = ndimage.center_of_mass(mask)
        assert int(row / size * 3) == part.cell[0]
        assert int(column / size * 3) == part.cell[1]


def test_nominal_area_of_simple_shapes() -> None:
    # A ring of radii 7.5 and 15 and a 38 by 25 box with corners of radius 2.5, both enlarged 1.5 times.
    assert nominal_area(PartKind.WASHER) == pytest.approx(np.pi * (15**2 - 7.5**2) * 2.25, rel=0.01)
    assert nominal_area(PartKind.BLOCK) == pytest.approx((38 * 25 - (4 - np.pi) * 2.5**2) * 2.25, rel=0.01)


def test_rotation_is_counter_clockwise() -> None:
    # The bolt's head is at its negative end: on the left at angle 0, at the bottom after a quarter turn.
    flat, upright = (
        part_masks(replace(draw_normal(RULES, np.random.default_rng(0)), parts=(part,), view=View()), RULES, 256)[0]
        for part in (Part(PartKind.BOLT, Colour.STEEL, (1, 1), angle) for angle in (0.0, 90.0))
    )
    assert np.array_equal(np.rot90(flat), upright)
    columns = flat.sum(axis=0)
    extent = np.flatnonzero(columns)
    assert columns[extent[: len(extent) // 2]].sum() > columns[extent[len(extent) // 2 :]].sum()


@pytest.mark.parametrize("kind", list(StructuralDefect))
def test_damage_changes_mostly_its_mask(kind: StructuralDefect) -> None:
    for seed in range(4):
        scene = draw_structural(RULES, kind, np.random.default_rng(seed))
        damaged, sound = (render(item, RULES, 256) for item in (scene, replace(scene, damage=None)))
        mask = damaged.damage_mask
        assert mask is not None
        assert sound.damage_mask is None
        assert 15 < mask.sum() < 0.03 * mask.size
        difference = np.abs(damaged.image.astype(int) - sound.image).max(axis=2)
        assert np.median(difference[mask]) > 6
        assert difference[mask].sum() > 0.7 * difference.sum()
        # Light, shadow and bevels extend a change by a few pixels, bending along the whole part; nothing more.
        damaged_area = mask.copy()
        if kind is StructuralDefect.DEFORMED:
            for part in sound.part_masks:
                if (part & mask).any():
                    damaged_area |= part
        assert not difference[ndimage.distance_transform_edt(~damaged_area) > 9].any()


def test_logical_masks_cover_suspects_or_vacancies() -> None:
    extra = draw_logical(RULES, LogicalDefect.EXTRA, np.random.default_rng(1))
    rendering = render(extra, RULES, 128)
    (mask,) = defect_masks(extra, rendering)
    assert set(np.unique(mask)) == {0, 254}
    covered = [bool((mask > 0)[part].all()) for part in rendering.part_masks]
    assert [index for index, hit in enumerate(covered) if hit] == list(extra.suspects)
    assert (mask > 0).sum() == sum(rendering.part_masks[index].sum() for index in extra.suspects)

    missing = draw_logical(RULES, LogicalDefect.MISSING, np.random.default_rng(1))
    rendering = render(missing, RULES, 128)
    (mask,) = defect_masks(missing, rendering)
    assert set(np.unique(mask)) == {0, 255}
    assert not any((mask > 0)[part].any() for part in rendering.part_masks)
    assert (mask > 0).sum() == sum(rendering.cell_masks[cell].sum() for cell in missing.vacancies)


# ------------------------------------------------------------------------------------------------------------ files


def test_files_follow_loco_layout() -> None:
    files = {file.path: file.data for file in iterate_files(SMALL)}
    images = [
        *(f"trays/train/good/{i:03d}.png" for i in range(2)),
        "trays/validation/good/000.png",
        *(f"trays/test/good/{i:03d}.png" for i in range(2)),
        *(f"trays/test/logical_anomalies/{i:03d}.png" for i in range(6)),
        *(f"trays/test/structural_anomalies/{i:03d}.png" for i in range(5)),
    ]
    masks = [f"trays/ground_truth/logical_anomalies/{i:03d}/000.png" for i in range(6)]
    masks += [f"trays/ground_truth/structural_anomalies/{i:03d}/000.png" for i in range(5)]
    assert sorted(files) == sorted([*images, *masks, "trays/defects_config.json"])
    for path in images:
        assert read(files[path]).shape == (64, 64, 3)

    entries = json.loads(files["trays/defects_config.json"])
    assert all(
        set(entry) == {"defect_name", "pixel_value", "saturation_threshold", "relative_saturation"} for entry in entries
    )
    assert [entry["defect_name"] for entry in entries] == [*map(str, LogicalDefect), *map(str, StructuralDefect)]
    values = {entry["pixel_value"]: entry for entry in entries}
    assert len(values) == len(entries)
    used = set()
    for path in masks:
        mask = read(files[path])
        assert mask.shape == (64, 64)
        (value,) = set(np.unique(mask)) - {0}
        used.add(value)
        entry = values[value]
        assert entry["relative_saturation"] is ("structural" in path)
        if entry["relative_saturation"]:
            assert entry["saturation_threshold"] == 1.0
        else:
            assert 0 < entry["saturation_threshold"] <= 1.25 * (mask > 0).sum()
    assert used == set(values)


def test_bytes_depend_only_on_configuration() -> None:
    first, second = list(iterate_files(SMALL)), list(iterate_files(SMALL))
    assert first == second
    other = {file.path: file.data for file in iterate_files(SMALL.model_copy(update={"seed": 4}))}
    images = [file for file in first if "/good/" in file.path]
    assert all(other[file.path] != file.data for file in images)
    assert len({file.data for file in images}) == len(images)


def test_images_do_not_depend_on_their_number() -> None:
    many = {file.path: file.data for file in iterate_files(SMALL)}
    few = SMALL.model_copy(update={"train": 1, "validation": 0, "test_good": 1, "logical": 2, "structural": 1})
    shorter = list(iterate_files(few))
    assert len(shorter) == 1 + 1 + 1 + 2 * 2 + 2
    assert all(many[file.path] == file.data for file in shorter)


def test_drawn_scene_matches_the_image() -> None:
    scene = draw_scene(SMALL, "test", "structural_anomalies", 2)
    rendering = render(scene, RULES, SMALL.image_size)
    files = {file.path: file.data for file in iterate_files(SMALL)}
    assert np.array_equal(read(files["trays/test/structural_anomalies/002.png"]), rendering.image)
    (mask,) = defect_masks(scene, rendering)
    assert np.array_equal(read(files["trays/ground_truth/structural_anomalies/002/000.png"]), mask)


def test_jpeg_images_keep_png_masks() -> None:
    config = SMALL.model_copy(update={"image_format": "jpeg", "category": "other"})
    files = list(islice(iterate_files(config), 8))
    assert files[1].path == "other/train/good/000.jpg"
    assert Image.open(io.BytesIO(files[1].data)).format == "JPEG"
    assert files[7].path == "other/ground_truth/logical_anomalies/000/000.png"
    assert Image.open(io.BytesIO(files[7].data)).format == "PNG"


@pytest.mark.parametrize(
    "values", [{"category": "../x"}, {"category": ""}, {"image_size": 32}, {"train": -1}, {"n": 1}]
)
def test_bad_configuration_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SceneConfig.model_validate(values)
