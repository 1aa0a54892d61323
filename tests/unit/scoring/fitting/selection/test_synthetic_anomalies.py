from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.perception.segments import Segments
from uniad_ray.scoring.fitting.selection.synthetic_anomalies import (
    SYNTHETIC_ANOMALIES,
    NormalView,
    family_of,
    make_synthetic_anomaly,
)

SIZE = 64
BACKGROUND = np.array([40, 60, 80], dtype=np.uint8)
RED, GREEN = np.array([200, 10, 10], dtype=np.uint8), np.array([10, 200, 10], dtype=np.uint8)


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[top : top + 12, left : left + 12] = True
    return mask


def view(*objects: tuple[np.ndarray, np.ndarray, str]) -> NormalView:
    image = np.broadcast_to(BACKGROUND, (SIZE, SIZE, 3)).copy()
    # A grained surface makes every change visible.
    image += np.random.default_rng(0).integers(0, 20, size=(SIZE, SIZE, 1), dtype=np.uint8)
    for mask, colour, _ in objects:
        image[mask] = colour
    masks = np.array([mask for mask, _, _ in objects], dtype=bool).reshape(len(objects), SIZE, SIZE)
    return NormalView(image, Segments.of(masks).named([name for _, _, name in objects]))


TWO = view((square(6, 6), RED, "bolt"), (square(40, 40), GREEN, "nut"))
OTHER = view((square(6, 40), RED, "bolt"), (square(40, 6), GREEN, "nut"))
EMPTY = view()


def pixels_of(image: np.ndarray, colour: np.ndarray) -> int:
    return int((np.abs(image.astype(int) - colour).max(axis=2) < 40).sum())


@pytest.mark.parametrize("name", SYNTHETIC_ANOMALIES)
def test_synthetic_anomaly_is_deterministic(name: str) -> None:
    synthetic = make_synthetic_anomaly(name, "a" * 32, TWO, [OTHER], seed=0)
    assert synthetic is not None
    assert synthetic.shape == TWO.image.shape
    assert synthetic.dtype == np.uint8
    assert (synthetic != TWO.image).any()
    np.testing.assert_array_equal(synthetic, make_synthetic_anomaly(name, "a" * 32, TWO, [OTHER], seed=0))
    others = [make_synthetic_anomaly(name, "a" * 32, TWO, [OTHER], seed=seed) for seed in range(1, 8)]
    assert any(other is None or (other != synthetic).any() for other in others)


def widened(normal: NormalView) -> NormalView:
    """The image with empty surface on its right, half as wide as the image."""
    assert normal.segments is not None
    image = np.concatenate([normal.image, EMPTY.image[:, : SIZE // 2]], axis=1)
    masks = np.pad(normal.segments.masks(), ((0, 0), (0, 0), (0, SIZE // 2)))
    return NormalView(image, Segments.of(masks).named(normal.segments.names))


@pytest.mark.parametrize("name", SYNTHETIC_ANOMALIES)
def test_rectangular_images_are_altered_as_well(name: str) -> None:
    wide = widened(TWO)
    made = [make_synthetic_anomaly(name, f"{number:032x}", wide, [widened(OTHER)], seed=0) for number in range(8)]
    found = [synthetic for synthetic in made if synthetic is not None]
    assert len(found) >= 6
    assert all(synthetic.shape == (SIZE, SIZE + SIZE // 2, 3) for synthetic in found)
    if family_of(name) == "surface":
        assert all((synthetic != wide.image).any(axis=2).mean() < 0.5 for synthetic in found)
    assert any((synthetic != wide.image)[:, :SIZE].any() for synthetic in found)


@pytest.mark.parametrize("name", [name for name in SYNTHETIC_ANOMALIES if family_of(name) == "objects"])
def test_object_anomalies_need_objects(name: str) -> None:
    assert make_synthetic_anomaly(name, "a" * 32, EMPTY, [OTHER], seed=0) is None
    assert make_synthetic_anomaly(name, "a" * 32, NormalView(TWO.image, None), [OTHER], seed=0) is None


@pytest.mark.parametrize("name", [name for name in SYNTHETIC_ANOMALIES if family_of(name) != "objects"])
def test_layout_and_surface_anomalies_need_no_segments(name: str) -> None:
    blind = make_synthetic_anomaly(name, "a" * 32, NormalView(TWO.image, None), [NormalView(OTHER.image, None)], seed=0)
    seeing = make_synthetic_anomaly(name, "a" * 32, TWO, [OTHER], seed=0)
    assert blind is not None
    assert seeing is not None
    np.testing.assert_array_equal(blind, seeing)


@pytest.mark.parametrize("seed", range(6))
def test_object_anomalies_change_the_objects(seed: int) -> None:
    def counted(name: str) -> tuple[float, float]:
        synthetic = make_synthetic_anomaly(name, "a" * 32, TWO, [EMPTY], seed)
        assert synthetic is not None
        return tuple(round(pixels_of(synthetic, colour) / 144, 1) for colour in (RED, GREEN))  # type: ignore[return-value]

    assert min(counted("erase")) == 0.0
    assert max(counted("erase")) == 1.0
    assert min(counted("move")) >= 0.6
    assert sum(counted("duplicate")) >= 2.6
    assert min(counted("exchange")) == 0.0
    assert max(counted("exchange")) >= 1.6


def test_foreign_object_has_the_same_class() -> None:
    blue = np.array([10, 10, 200], dtype=np.uint8)
    other = view((square(30, 10), blue, "bolt"))
    synthetic = make_synthetic_anomaly(
        "foreign_object", "a" * 32, view((square(6, 6), RED, "bolt")), [EMPTY, other], seed=0
    )
    assert synthetic is not None
    assert pixels_of(synthetic, RED) == 0
    assert pixels_of(synthetic, blue) / 144 >= 0.6
    np.testing.assert_allclose(np.argwhere(synthetic[..., 2] > 150).mean(axis=0), [11.5, 11.5], atol=1.0)
    assert (
        make_synthetic_anomaly("foreign_object", "a" * 32, view((square(6, 6), RED, "nut")), [EMPTY, other], seed=0)
        is None
    )


def test_erased_object_shows_background_of_other_image() -> None:
    marked = view()
    marked.image[...] = np.array([1, 2, 3], dtype=np.uint8)
    one = view((square(20, 20), RED, "bolt"))
    synthetic = make_synthetic_anomaly("erase", "a" * 32, one, [view((square(20, 20), GREEN, "nut")), marked], seed=0)
    assert synthetic is not None
    assert synthetic[26, 26].tolist() == [1, 2, 3]
    hidden = make_synthetic_anomaly("erase", "a" * 32, one, [view((square(20, 20), GREEN, "nut"))], seed=0)
    assert hidden is not None
    assert np.abs(hidden[26, 26].astype(int) - BACKGROUND).max() < 30


def test_objects_of_one_class_are_not_exchanged() -> None:
    same = view((square(6, 6), RED, "bolt"), (square(40, 40), RED, "bolt"))
    assert make_synthetic_anomaly("exchange", "a" * 32, same, [EMPTY], seed=0) is None


def test_image_filling_object_cannot_be_moved() -> None:
    full = view((np.ones((SIZE, SIZE), dtype=bool), RED, "plate"))
    for name in ("duplicate", "move"):
        assert make_synthetic_anomaly(name, "a" * 32, full, [OTHER], seed=0) is None


def test_swapped_cells_keep_every_pixel() -> None:
    synthetic = make_synthetic_anomaly("swap_cells", "b" * 32, TWO, [OTHER], seed=3)
    assert synthetic is not None
    assert sorted(map(tuple, synthetic.reshape(-1, 3))) == sorted(map(tuple, TWO.image.reshape(-1, 3)))


def test_surface_anomalies_are_small() -> None:
    grey = NormalView(np.repeat(TWO.image[..., :1], 3, axis=2), None)
    for name in ("cut_paste", "scratch", "stain", "warp", "fleck", "nick"):
        for seed in range(5):
            synthetic = make_synthetic_anomaly(name, "c" * 32, grey, [grey], seed)
            if synthetic is not None:
                assert (synthetic != grey.image).any(axis=2).mean() < 0.2
                assert (synthetic.max(axis=2) == synthetic.min(axis=2)).all()


def test_flecks_and_nicks_are_as_small_as_the_smallest_defects() -> None:
    plain = NormalView(np.full((400, 600, 3), 120, dtype=np.uint8), None)

    def changed(name: str, seed: int) -> float:
        synthetic = make_synthetic_anomaly(name, f"{seed:032x}", plain, [plain], seed)
        return 0.0 if synthetic is None else float((synthetic != plain.image).any(axis=2).mean())

    flecks = [changed("fleck", seed) for seed in range(20)]
    nicks = [changed("nick", seed) for seed in range(20)]
    assert 0.0005 < np.median(flecks) < 0.004
    assert max(flecks) < 0.008
    assert 0.0001 < np.median(nicks) < 0.002
