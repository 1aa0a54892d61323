"""The structural features of an image: its levels, aware of their neighbourhood, as one field (UniAD, eq. 1-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import AfterValidator, Field

from uniad_ray.experts.patch_features import patch_features


def _odd(side: int) -> int:
    if side % 2 == 0:
        raise ValueError("neighbourhood must be odd, so that a patch lies in its middle")
    return side


Neighbourhood = Annotated[int, Field(ge=1, le=31), AfterValidator(_odd)]


def structural_features(
    fields: Mapping[str, torch.Tensor], names: Sequence[str], *, neighbourhood: int = 3, channels: int = 1536
) -> torch.Tensor:
    """Pools each level over its neighbourhood, brings all to the largest grid and concatenates them.

    `g_str` of a teacher's levels, `f_str` of a student's. The number of channels is set by PatchCore's adaptive average
    over neighbouring channels (UniAD, section 4.1). Gradients pass through.

    Args:
        fields: Levels, float32, shape (N, C_l, h_l, w_l).
        names: Which levels to take, in the order of concatenation.
        neighbourhood: Side p of the pooled window (eq. 1), odd.
        channels: The most channels of the result; a concatenation that is no wider stays as it is.

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
