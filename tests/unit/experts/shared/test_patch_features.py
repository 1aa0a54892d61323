from __future__ import annotations

import numpy as np
import pytest
import torch

from uniad_ray.experts.shared.patch_features import as_vectors, patch_features


def pooled_slowly(field: np.ndarray, side: int) -> np.ndarray:
    """Mean over a zero-padded window, cell by cell."""
    _, height, width = field.shape
    reach = side // 2
    out = np.zeros_like(field)
    for row in range(height):
        for column in range(width):
            for above in range(-reach, reach + 1):
                for left in range(-reach, reach + 1):
                    if 0 <= row + above < height and 0 <= column + left < width:
                        out[:, row, column] += field[:, row + above, column + left]
    return out / side**2


@pytest.mark.parametrize("side", [1, 3, 5])
def test_neighbourhood_is_a_zero_padded_mean(side: int) -> None:
    field = np.random.default_rng(1).normal(size=(3, 6, 5)).astype(np.float32)

    pooled = patch_features({"a": torch.from_numpy(field)[None]}, ["a"], neighbourhood=side)[0].numpy()

    np.testing.assert_allclose(pooled, pooled_slowly(field, side), atol=1e-6)


def test_padding_counts_in_the_mean_at_the_border() -> None:
    pooled = patch_features({"a": torch.ones(1, 1, 4, 4)}, ["a"], neighbourhood=3)[0, 0]

    assert pooled[0, 0] == pytest.approx(4 / 9)
    assert pooled[0, 1] == pytest.approx(6 / 9)
    assert pooled[1, 1] == pytest.approx(1.0)


def test_fields_are_pooled_before_resizing() -> None:
    small = torch.ones(1, 1, 2, 2)
    fields = {"large": torch.zeros(1, 1, 4, 4), "small": small}

    features = patch_features(fields, ["large", "small"], neighbourhood=3)

    assert torch.allclose(features[0, 1], torch.full((4, 4), 4 / 9))


def test_normalising_gives_cells_unit_length() -> None:
    fields = {"a": torch.randn(1, 4, 3, 3) * 9, "b": torch.randn(1, 2, 3, 3) / 9}

    features = patch_features(fields, ["a", "b"], neighbourhood=1, normalise=True)[0]

    assert torch.allclose(features[:4].norm(dim=0), torch.ones(3, 3))
    assert torch.allclose(features[4:].norm(dim=0), torch.ones(3, 3))


def test_vectors_are_in_row_order() -> None:
    vectors = as_vectors(torch.arange(12.0).reshape(2, 2, 3))

    assert vectors.tolist() == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
