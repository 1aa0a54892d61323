from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.fitting.synthetic.kinds import (
    SYNTHETIC_ANOMALIES,
    family_of,
    make_synthetic_anomaly,
    uses_parts,
)
from uniad_ray.scoring.fitting.synthetic.parts import Parts

SIZE = 96
SIDE = 14
BACKGROUND = np.array([90, 110, 130], dtype=np.uint8)
RED, GREEN, BLUE = (np.array(colour, dtype=np.uint8) for colour in ([200, 10, 10], [10, 200, 10], [10, 10, 220]))
ROW_KEY = "a" * 32


def square(top: int, left: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def scene(*parts: tuple[np.ndarray, np.ndarray, str]) -> Parts:
    image = np.broadcast_to(BACKGROUND, (SIZE, SIZE, 3)).copy()
    # A grained ground makes every change visible.
    image += np.random.default_rng(0).integers(0, 12, size=(SIZE, SIZE, 1), dtype=np.uint8)
    for mask, colour, _ in parts:
        image[mask] = colour
    masks = np.array([mask for mask, _, _ in parts], dtype=bool).reshape(len(parts), SIZE, SIZE)
    return Parts(image, Segments.of(masks, names=[name for _, _, name in parts]))


TWO = scene((square(10, 10), RED, "bolt"), (square(60, 62), GREEN, "nut"))
OTHER = scene((square(10, 62), BLUE, "bolt"), (square(60, 10), GREEN, "nut"))
EMPTY = scene()
MANY = scene(
    *((square(8 + 28 * row, 8 + 28 * column), RED, "bolt") for row in range(2) for column in range(3)),
    (square(66, 36), GREEN, "nut"),
)


def made(name: str, parts: Parts, *others: Parts, seed: int = 0, row_key: str = ROW_KEY) -> np.ndarray:
    found = make_synthetic_anomaly(name, row_key, parts, others, seed)
    assert found is not None
    return found


def area(image: np.ndarray, colour: np.ndarray) -> float:
    """Pixels of about a colour, in parts."""
    return float((np.abs(image.astype(int) - colour).max(axis=2) < 40).sum()) / SIDE**2


def place(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.argwhere(np.abs(image.astype(int) - colour).max(axis=2) < 40).mean(axis=0)


@pytest.mark.parametrize("name", SYNTHETIC_ANOMALIES)
def test_synthetic_anomaly_is_deterministic(name: str) -> None:
    found = made(name, MANY, OTHER)
    assert found.shape == MANY.image.shape
    assert found.dtype == np.uint8
    assert (found != MANY.image).any()
    np.testing.assert_array_equal(found, made(name, MANY, OTHER))
    others = [make_synthetic_anomaly(name, ROW_KEY, MANY, [OTHER], seed) for seed in range(1, 8)]
    assert any(other is None or (other != found).any() for other in others)


@pytest.mark.parametrize("name", SYNTHETIC_ANOMALIES)
def test_rectangular_images_are_altered_as_well(name: str) -> None:
    def widened(parts: Parts) -> Parts:
        image = np.concatenate([parts.image, EMPTY.image[:, : SIZE // 2]], axis=1)
        masks = np.array([parts.filled(number) for number in range(len(parts.names))])
        return Parts(image, Segments.of(np.pad(masks, ((0, 0), (0, 0), (0, SIZE // 2))), names=parts.names))

    wide, other = widened(MANY), widened(OTHER)
    tried = [make_synthetic_anomaly(name, f"{number:032x}", wide, [other], seed=0) for number in range(8)]
    found = [one for one in tried if one is not None]
    assert len(found) >= 6
    assert all(one.shape == wide.image.shape for one in found)
    if family_of(name) == "surface":
        assert all((one != wide.image).any(axis=2).mean() < 0.5 for one in found)


@pytest.mark.parametrize("name", SYNTHETIC_ANOMALIES)
def test_only_changes_of_parts_need_segments(name: str) -> None:
    without = make_synthetic_anomaly(name, ROW_KEY, Parts(TWO.image, None), [Parts(OTHER.image, None)], seed=0)
    assert (without is None) is uses_parts(name)
    assert (make_synthetic_anomaly(name, ROW_KEY, EMPTY, [OTHER], seed=0) is None) is uses_parts(name)


@pytest.mark.parametrize("seed", range(6))
def test_number_of_parts_is_what_the_kind_says(seed: int) -> None:
    def areas(name: str, parts: Parts = TWO) -> tuple[float, float]:
        image = made(name, parts, OTHER, seed=seed)
        return area(image, RED), area(image, GREEN)

    assert sorted(areas("missing")) == pytest.approx([0.0, 1.0], abs=0.05)
    assert sorted(areas("extra")) == pytest.approx([1.0, 2.0], abs=0.05)
    for name in ("moved", "swapped", "turned"):
        assert areas(name) == pytest.approx([1.0, 1.0], abs=0.05)
    # Two of six bolts became nuts.
    assert areas("wrong_ratio", MANY) == pytest.approx([4.0, 3.0], abs=0.1)
    longer_or_shorter = np.subtract(areas("stretched"), 1.0)
    assert np.count_nonzero(np.abs(longer_or_shorter) > 0.05) == 1
    assert np.abs(longer_or_shorter).max() < 0.4


@pytest.mark.parametrize("seed", range(6))
def test_ground_shows_no_seam_where_a_part_was(seed: int) -> None:
    image = made("missing", TWO, OTHER, seed=seed)
    changed = (image != TWO.image).any(axis=2)
    assert changed.sum() >= SIDE**2
    # All of it is ground, whose grain has 12 levels.
    assert np.abs(image[changed].astype(int) - BACKGROUND - 6).max() <= 12
    assert image[changed].std(axis=0).min() > 2.0


def test_ground_comes_from_another_image_if_there_is_no_other_place() -> None:
    walls = [(square(0, 0, SIZE, 30), BLUE, "wall"), (square(0, 66, SIZE, 30), BLUE, "wall")]
    inside = [(square(0, 30, 36, 36), BLUE, "lid"), (square(60, 30, 36, 36), BLUE, "lid")]
    box = scene(*walls, *inside, (square(42, 40, 12, 16), RED, "bolt"))
    assert make_synthetic_anomaly("missing", ROW_KEY, box, [], seed=0) is None
    image = made("missing", box, scene(*walls, *inside))
    assert area(image, RED) == 0.0


def test_moved_part_keeps_its_shadow() -> None:
    shadow = np.array([60, 74, 88], dtype=np.uint8)
    image = TWO.image.copy()
    # A shadow of two pixels below each part, which is not in its segment.
    for top, left in ((10, 10), (60, 62)):
        image[top + SIDE : top + SIDE + 2, left : left + SIDE] = shadow
    parts = Parts(image, Segments.of(np.array([square(10, 10), square(60, 62)]), names=["bolt", "nut"]))
    for seed in range(4):
        found = made("moved", parts, seed=seed)
        below = np.abs(found.astype(int) - shadow).max(axis=2) < 12
        assert below.sum() == pytest.approx(4 * SIDE, abs=6)
        for colour in (RED, GREEN):
            down, across = place(found, colour)
            assert below[int(down) + SIDE // 2 + 1, int(across)]


def test_swapped_parts_change_places() -> None:
    image = made("swapped", TWO, OTHER)
    np.testing.assert_allclose(place(image, RED), place(TWO.image, GREEN), atol=1.0)
    np.testing.assert_allclose(place(image, GREEN), place(TWO.image, RED), atol=1.0)


def test_parts_of_one_kind_are_not_swapped() -> None:
    same = scene((square(10, 10), RED, "bolt"), (square(60, 62), RED, "bolt"))
    assert make_synthetic_anomaly("swapped", ROW_KEY, same, [EMPTY], seed=0) is None


def test_replaced_part_is_in_the_place_of_the_old_one() -> None:
    one = scene((square(40, 20), RED, "bolt"))
    for name, kind, colour in (("other_copy", "bolt", BLUE), ("wrong_kind", "nut", GREEN)):
        image = made(name, one, scene((square(10, 62), colour, kind)))
        assert area(image, RED) == 0.0
        np.testing.assert_allclose(place(image, colour), place(one.image, RED), atol=1.0)
    nut = scene((square(10, 62), GREEN, "nut"))
    assert make_synthetic_anomaly("other_copy", ROW_KEY, one, [nut], seed=0) is None


def test_turned_part_is_upside_down() -> None:
    arrow = square(40, 40) | square(40, 54, 4, 10)
    image = made("turned", scene((arrow, RED, "arrow")))
    found = np.abs(image.astype(int) - RED).max(axis=2) < 40
    centre = np.rint(2 * np.argwhere(arrow).mean(axis=0)).astype(int)
    expected = np.zeros_like(arrow)
    rows, columns = (centre - np.argwhere(arrow)).T
    expected[rows, columns] = True
    assert np.count_nonzero(found & expected) >= 0.95 * np.count_nonzero(expected | found)


def test_kinds_that_are_rare_have_no_ratio() -> None:
    assert make_synthetic_anomaly("wrong_ratio", ROW_KEY, TWO, [OTHER], seed=0) is None


def test_image_filling_part_stays() -> None:
    full = scene((np.ones((SIZE, SIZE), dtype=bool), RED, "plate"))
    for name in SYNTHETIC_ANOMALIES:
        if uses_parts(name):
            assert make_synthetic_anomaly(name, ROW_KEY, full, [OTHER], seed=0) is None


def test_surface_anomalies_are_small() -> None:
    grey = Parts(np.repeat(TWO.image[..., :1], 3, axis=2), None)
    for name in SYNTHETIC_ANOMALIES:
        for seed in range(5):
            found = make_synthetic_anomaly(name, "c" * 32, grey, [grey], seed)
            if found is not None and family_of(name) == "surface":
                assert (found != grey.image).any(axis=2).mean() < 0.2
                assert (found.max(axis=2) == found.min(axis=2)).all()


def test_flecks_and_nicks_are_as_small_as_the_smallest_defects() -> None:
    plain = Parts(np.full((400, 600, 3), 120, dtype=np.uint8), None)

    def changed(name: str, seed: int) -> float:
        found = make_synthetic_anomaly(name, f"{seed:032x}", plain, [plain], seed)
        return 0.0 if found is None else float((found != plain.image).any(axis=2).mean())

    flecks = [changed("fleck", seed) for seed in range(20)]
    nicks = [changed("nick", seed) for seed in range(20)]
    assert 0.0005 < np.median(flecks) < 0.004
    assert max(flecks) < 0.008
    assert 0.0001 < np.median(nicks) < 0.002
