"""Builds patch vectors from feature fields: aligned, pooled over a neighbourhood and concatenated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from uniad_ray.perception.grids import largest_grid, resize_field


def patch_features(
    fields: Mapping[str, torch.Tensor],
    names: Sequence[str],
    *,
    grid: tuple[int, int] | None = None,
    neighbourhood: int = 3,
    normalise: bool = False,
) -> torch.Tensor:
    """Concatenates fields into one neighbourhood-aware vector per patch (PatchCore, section 3.1).

    Each field is optionally L2-normalised over its channels, averaged over the neighbourhood on its own grid, and
    resized to the common grid. The average includes the zeros of the padding, so vectors at the border are shorter.
    This separates them from inner ones under L2, and damps the padding effects of the network itself.

    Args:
        fields: Tensors of shape (N, C_i, h_i, w_i), float32.
        names: Names of the fields to use, in the order of concatenation.
        grid: The common (h, w), or None for the largest grid among the fields.
        neighbourhood: Side p of the pooled window, odd; 1 disables pooling.
        normalise: Whether each field is scaled to unit length at each cell before pooling.

    Returns:
        float32, shape (N, sum of C_i, h, w).
    """
    grid = grid or largest_grid(fields, names)
    parts = []
    for name in names:
        part = fields[name].float()
        if normalise:
            part = F.normalize(part, dim=1)
        if neighbourhood > 1:
            part = F.avg_pool2d(part, neighbourhood, stride=1, padding=neighbourhood // 2, count_include_pad=True)
        parts.append(resize_field(part, grid))
    return torch.cat(parts, dim=1)


def as_vectors(features: torch.Tensor) -> torch.Tensor:
    """Reorders the features of one image, shape (C, h, w), to contiguous rows of shape (h * w, C), row by row."""
    return features.flatten(1).T.contiguous()
