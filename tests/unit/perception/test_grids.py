from __future__ import annotations

import torch

from uniad_ray.perception.grids import largest_grid, resize_field


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
