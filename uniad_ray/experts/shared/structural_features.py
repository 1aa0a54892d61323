"""Structural features of an image: its levels, pooled over a neighbourhood, as one field (UniAD, eq. 1-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import AfterValidator, Field

from uniad_ray.experts.shared.patch_features import patch_features


def _odd(side: int) -> int:
    if side % 2 == 0:
        raise ValueError("neighbourhood must be odd, so that the window has a centre")
    return side


Neighbourhood = Annotated[int, Field(ge=1, le=31), AfterValidator(_odd)]


def structural_features(
    fields: Mapping[str, torch.Tensor], names: Sequence[str], *, neighbourhood: int = 3, channels: int = 1536
) -> torch.Tensor:
    """Pools each level over its neighbourhood, resizes all to the largest grid and concatenates them.

    This is `g_str` of the teacher's levels, `f_str` of the student's. PatchCore's adaptive average over neighbouring
    channels sets the number of channels (UniAD, section 4.1). The function is differentiable.

    Args:
        fields: Levels, float32, shape (N, C_l, h_l, w_l).
        names: Levels to use, in the order of concatenation.
        neighbourhood: Side p of the pooled window (eq. 1), odd.
        channels: Maximum number of channels of the result; a narrower concatenation is not changed.

    Returns:
        float32, shape (N, min(channels, sum of C_l), h, w), on the largest grid among the levels.
    """
    features = patch_features(fields, names, neighbourhood=neighbourhood)
    count, width, height, breadth = features.shape
    if width <= channels:
        return features
    cells = features.flatten(2).transpose(1, 2)
    pooled = F.adaptive_avg_pool1d(cells, channels)
    return pooled.transpose(1, 2).reshape(count, channels, height, breadth)
