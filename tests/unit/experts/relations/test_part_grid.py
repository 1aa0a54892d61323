from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.experts.relations.part_grid import PartGrid


def learn(boxes: list[list[float]], copies: int = 40) -> PartGrid:
    """A grid learned from `copies` equal images."""
    every = np.tile(np.array(boxes, dtype=np.float32), (copies, 1))
    return PartGrid.learn(every, np.repeat(np.arange(copies), len(boxes)), copies)


def test_lines_run_in_the_middle_between_parts() -> None:
    grid = learn([[0.1, 0.1, 0.3, 0.2], [0.5, 0.4, 0.9, 0.5], [0.55, 0.7, 0.6, 0.95]])

    np.testing.assert_allclose(grid.row_lines, [0.4], atol=1 / 256)
    np.testing.assert_allclose(grid.column_lines, [0.3, 0.6], atol=1 / 256)
    assert len(grid) == 6
    assert [grid.position(cell) for cell in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_scattered_parts_give_one_cell() -> None:
    places = np.random.default_rng(0).random((300, 2)) * 0.8
    boxes = np.concatenate([places, places + 0.2], axis=1)

    grid = PartGrid.learn(boxes, np.repeat(np.arange(100), 3), 100)

    assert len(grid) == 1
    np.testing.assert_array_equal(grid.shares(boxes), np.ones((300, 1)))


def test_single_unusual_image_keeps_the_lines() -> None:
    boxes = np.array([[0.1, 0.1, 0.3, 0.2], [0.5, 0.1, 0.9, 0.2]] * 40 + [[0.1, 0.1, 0.9, 0.2]])
    owners = np.append(np.repeat(np.arange(40), 2), 40)

    assert len(PartGrid.learn(boxes, owners, 41)) == 2


def test_only_the_five_widest_gaps_are_used() -> None:
    edges = np.cumsum([0.02, *(0.02 * (number % 2 + 1) for number in range(20))])
    boxes = [[0.1, float(edge), 0.2, float(edge) + 0.01] for edge in edges]

    assert len(learn(boxes).column_lines) == 5


def test_narrow_gap_has_no_line() -> None:
    assert len(learn([[0.1, 0.1, 0.2, 0.2], [0.1, 0.22, 0.2, 0.3]])) == 1
    assert len(learn([[0.1, 0.1, 0.2, 0.2], [0.1, 0.24, 0.2, 0.3]])) == 2


def test_no_parts_give_one_cell() -> None:
    assert len(PartGrid.learn(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), 3)) == 1


def test_part_on_a_line_counts_in_both_cells() -> None:
    grid = PartGrid(np.array([0.5]), np.array([0.4]))

    np.testing.assert_allclose(grid.shares(np.array([[0.4, 0.1, 0.8, 0.5]])), [[0.1875, 0.0625, 0.5625, 0.1875]])


def test_cells_of_pixels_follow_the_lines() -> None:
    grid = PartGrid(np.array([0.5]), np.array([0.3, 0.6]))

    assert grid.cells(2, 4).tolist() == [[0, 1, 2, 2], [3, 4, 5, 5]]


@pytest.mark.parametrize("degenerate", [[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])
def test_box_without_area_counts_once(degenerate: list[float]) -> None:
    grid = PartGrid(np.array([0.5]), np.array([0.5]))

    np.testing.assert_allclose(grid.shares(np.array([degenerate])).sum(), 1.0)


@given(
    st.lists(st.tuples(*[st.floats(0, 0.7)] * 2, *[st.floats(0.001, 0.3)] * 2), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_learned_lines_cross_no_part(parts: list[tuple[float, float, float, float]], images: int) -> None:
    boxes = np.array([[top, left, top + height, left + width] for top, left, height, width in parts])

    grid = PartGrid.learn(boxes, np.arange(len(boxes)) % images, images)

    shares = grid.shares(boxes)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    # Only a part thinner than the search step for gaps may lie on a line.
    thick = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) > 1 / 200
    np.testing.assert_allclose(shares[thick].max(axis=1, initial=0.0), 1.0)
