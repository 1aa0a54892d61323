from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.perception.grids import grid_size, largest_grid, resize_field


def test_largest_grid_has_the_most_cells() -> None:
    fields = {"wide": torch.zeros(1, 3, 2, 8), "square": torch.zeros(1, 1, 4, 4), "small": torch.zeros(1, 9, 3, 3)}

    assert largest_grid(fields, ["small", "square", "wide"]) == (4, 4)
    assert largest_grid(fields, ["wide", "square"]) == (2, 8)


def test_shrinking_averages_cells() -> None:
    field = torch.arange(16.0).reshape(1, 1, 4, 4)

    assert resize_field(field, (2, 2))[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert resize_field(field, (4, 4)) is field


def test_growing_is_bilinear_between_cell_centres() -> None:
    grown = resize_field(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))

    assert grown[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


@pytest.mark.parametrize(
    ("image_size", "longest_side", "expected"),
    [
        ((256, 256), 128, (128, 128)),
        ((64, 64), 128, (128, 128)),
        ((480, 640), 128, (96, 128)),
        ((640, 480), 64, (64, 48)),
        ((10, 2000), 128, (1, 128)),
    ],
)
def test_grid_has_the_aspect_ratio_of_the_image(
    image_size: tuple[int, int], longest_side: int, expected: tuple[int, int]
) -> None:
    assert grid_size(image_size, longest_side) == expected


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(16, 1024))
def test_longest_side_of_a_grid_is_exact(height: int, width: int, longest_side: int) -> None:
    rows, columns = grid_size((height, width), longest_side)
    assert max(rows, columns) == longest_side
    assert min(rows, columns) >= 1
    assert grid_size((width, height), longest_side) == (columns, rows)
