"""A fully connected conditional random field that aligns labels with image edges (Kraehenbuehl and Koltun, 2011).

Implemented here because no maintained package installs. The authors' filter only pays off for many more nodes; at this
size the matrix of all pairs is small.
"""

from __future__ import annotations

import torch
from pydantic import Field

from uniad_ray.config.base import StrictModel


class CrfConfig(StrictModel):
    """Options of the random field.

    Attributes:
        grid: Side of the grid of nodes; time grows with its fourth power.
        iterations: Number of mean-field steps.
        appearance_weight: Weight of the kernel that connects nearby pixels of similar colour.
        appearance_reach: Standard deviation of the appearance kernel in position, as a fraction of the image's side.
        appearance_colour: Standard deviation of the appearance kernel in colour, for values in 0..255.
        smoothness_weight: Weight of the kernel that connects nearby pixels regardless of colour.
        smoothness_reach: Standard deviation of the smoothness kernel in position, as a fraction of the image's side.
    """

    grid: int = Field(default=32, ge=2, le=64)
    iterations: int = Field(default=5, ge=1, le=50)
    appearance_weight: float = Field(default=5.0, ge=0.0, le=1000.0)
    appearance_reach: float = Field(default=0.15, gt=0.0, le=10.0)
    appearance_colour: float = Field(default=25.0, gt=0.0, le=255.0)
    smoothness_weight: float = Field(default=3.0, ge=0.0, le=1000.0)
    smoothness_reach: float = Field(default=0.03, gt=0.0, le=10.0)


class DenseCrf:
    """Mean-field inference in a random field; two Gaussian kernels connect every pair of pixels (eq. 2 and 3).

    The kernels are normalised symmetrically, as in the authors' code: k_ij / sqrt(d_i d_j), where d_i is the sum of
    k_ij over all j, including i. A pixel sends no message to itself.
    """

    def __init__(self, config: CrfConfig, device: torch.device | str = "cpu") -> None:
        """Precomputes the terms that do not depend on the image."""
        self._config = config
        axis = torch.arange(config.grid, dtype=torch.float32, device=device) / config.grid
        positions = torch.cartesian_prod(axis, axis)
        squared = (positions[:, None] - positions).square().sum(dim=2)
        smoothness = torch.exp(-0.5 * squared / config.smoothness_reach**2)
        root = smoothness.sum(dim=1).rsqrt()
        self._smoothness = config.smoothness_weight * smoothness * root[:, None] * root
        self._smoothness.fill_diagonal_(0.0)
        self._appearance_exponent = -0.5 * squared / config.appearance_reach**2

    def refine(self, unary: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Refines the labels of one image (algorithm 1), on the device of the field.

        With the Potts model, the compatibility transform subtracts each label's own message from its energy, up to a
        constant per pixel.

        Args:
            unary: Energy of each label at each node: float32, shape (K, grid, grid).
            image: Colours in 0..255 at the nodes: float32, shape (3, grid, grid).

        Returns:
            Probability of each label: float32, shape (K, grid, grid), summing to 1 over the labels.
        """
        energy = unary.flatten(1)
        pairs = self._pairs(image)
        probability = torch.softmax(-energy, dim=0)
        for _ in range(self._config.iterations):
            probability = torch.softmax(probability @ pairs - energy, dim=0)
        return probability.reshape(unary.shape)

    def _pairs(self, image: torch.Tensor) -> torch.Tensor:
        """The weighted sum of both kernels: symmetric, shape (nodes, nodes), with a zero diagonal."""
        colours = image.flatten(1).T / self._config.appearance_colour
        # Centred, because |a|^2 + |b|^2 - 2 a.b loses precision if all colours are similar.
        colours = colours - colours.mean(dim=0)
        half_norms = 0.5 * colours.square().sum(dim=1)
        exponent = self._appearance_exponent - half_norms[:, None] - half_norms
        appearance = exponent.addmm_(colours, colours.T).exp_()
        root = appearance.sum(dim=1).rsqrt()
        appearance *= self._config.appearance_weight * root[:, None]
        appearance *= root
        appearance.fill_diagonal_(0.0)
        return appearance.add_(self._smoothness)
