from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from uniad_ray.perception.segmentation.crf import CrfConfig, DenseCrf


def mean_field_slowly(unary: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Algorithm 1 of Kraehenbuehl and Koltun, pixel by pixel, label by label, with the Potts model spelt out."""
    labels, side, _ = unary.shape
    nodes = [(row, column) for row in range(side) for column in range(side)]

    def kernels(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
        place = ((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) / side**2
        colour = float(np.square(image[:, *one].astype(float) - image[:, *other]).sum())
        appearance = math.exp(-place / (2 * config.appearance_reach**2) - colour / (2 * config.appearance_colour**2))
        return appearance, math.exp(-place / (2 * config.smoothness_reach**2))

    sums = {node: np.sum([kernels(node, other) for other in nodes], axis=0) for node in nodes}
    weights = np.array([config.appearance_weight, config.smoothness_weight])
    belief = {node: np.exp(-unary[:, *node]) / np.exp(-unary[:, *node]).sum() for node in nodes}
    for _ in range(config.iterations):
        updated = {}
        for node in nodes:
            energy = unary[:, *node].astype(float).copy()
            for label in range(labels):
                for other in nodes:
                    if other == node:
                        continue
                    strength = (weights * kernels(node, other) / np.sqrt(sums[node] * sums[other])).sum()
                    disagreement = sum(belief[other][another] for another in range(labels) if another != label)
                    energy[label] += strength * disagreement
            updated[node] = np.exp(-energy) / np.exp(-energy).sum()
        belief = updated
    return np.array([belief[node] for node in nodes]).T.reshape(labels, side, side)


def problem(seed: int, labels: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    unary = generator.normal(size=(labels, side, side)).astype(np.float32)
    image = generator.integers(0, 256, size=(3, side, side)).astype(np.float32)
    return torch.from_numpy(unary), torch.from_numpy(image)


@pytest.mark.parametrize("weights", [(2.0, 0.0), (0.0, 2.0), (3.0, 1.0)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_equals_a_direct_mean_field(weights: tuple[float, float], iterations: int) -> None:
    config = CrfConfig(
        grid=4,
        iterations=iterations,
        appearance_weight=weights[0],
        smoothness_weight=weights[1],
        appearance_reach=0.4,
        appearance_colour=80.0,
        smoothness_reach=0.3,
    )
    unary, image = problem(1, 3, 4)

    refined = DenseCrf(config).refine(unary, image).numpy()

    np.testing.assert_allclose(refined, mean_field_slowly(unary.numpy(), image.numpy(), config), atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([2, 5, 9]))
def test_gives_probabilities_and_the_same_bits_again(seed: int, labels: int, side: int) -> None:
    crf = DenseCrf(CrfConfig(grid=side))
    unary, image = problem(seed, labels, side)

    refined = crf.refine(unary, image)

    assert torch.isfinite(refined).all()
    np.testing.assert_allclose(refined.sum(dim=0).numpy(), 1.0, atol=1e-5)
    assert torch.equal(refined, crf.refine(unary, image))


def test_without_weights_only_the_unary_energy_counts() -> None:
    unary, image = problem(2, 3, 5)

    refined = DenseCrf(CrfConfig(grid=5, appearance_weight=0.0, smoothness_weight=0.0)).refine(unary, image)

    np.testing.assert_allclose(refined.numpy(), torch.softmax(-unary, dim=0).numpy(), atol=1e-6)


def test_labels_spread_up_to_an_edge() -> None:
    image = torch.zeros(3, 8, 8)
    image[:, :, 4:] = 200.0
    unary = torch.zeros(2, 8, 8)
    unary[1, 3, 1] = unary[0, 3, 6] = 8.0  # one confident node on each side; the others are undecided

    labels = DenseCrf(CrfConfig(grid=8, appearance_reach=1.0, smoothness_weight=0.0)).refine(unary, image).argmax(dim=0)

    assert (labels[:, :4] == 0).all()
    assert (labels[:, 4:] == 1).all()


def test_black_image_is_smoothed() -> None:
    unary, _ = problem(3, 3, 8)

    refined = DenseCrf(CrfConfig(grid=8)).refine(unary, torch.zeros(3, 8, 8))

    assert torch.isfinite(refined).all()


@pytest.mark.parametrize("options", [{"grid": 65}, {"grid": 1}, {"iterations": 0}, {"appearance_colour": 0.0}])
def test_invalid_options_are_rejected(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CrfConfig.model_validate(options)
