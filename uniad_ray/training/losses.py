"""The training losses of the student (UniAD, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from uniad_ray.experts.shared.patch_features import patch_features
from uniad_ray.perception.features.student import DistilledFeatures, LossWeights


def low_level_loss(teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor]) -> torch.Tensor:
    """L_low: squared differences of each level (eq. 3), averaged over images, channels and cells, summed over levels.

    The paper prints sums over channels and cells. Their mean weighs levels of any size equally.

    Args:
        teacher: Levels of the structural teacher, float32, shape (N, C_l, h_l, w_l).
        student: Levels of the student, with the same shapes.

    Returns:
        A scalar.
    """
    losses = [functional.mse_loss(ours, theirs) for theirs, ours in zip(teacher, student, strict=True)]
    return torch.stack(losses).sum()


def high_level_loss(
    teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor], neighbourhood: int
) -> torch.Tensor:
    """L_high: squared differences of the fused features (eq. 1, 2 and 4), averaged over images, channels and cells.

    Pooling, interpolation and concatenation are linear: fusing the differences gives the same result in half the time.

    Args:
        teacher: Levels of the structural teacher, float32, shape (N, C_l, h_l, w_l).
        student: Levels of the student, with the same shapes.
        neighbourhood: Side p of the pooled window.

    Returns:
        A scalar.
    """
    differences = {str(n): ours - theirs for n, (theirs, ours) in enumerate(zip(teacher, student, strict=True))}
    return patch_features(differences, list(differences), neighbourhood=neighbourhood).square().mean()


def logical_loss(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """L_log: squared differences to the logical teacher's field (eq. 10), averaged over images, channels and cells.

    Args:
        teacher: Field of the logical teacher, float32, shape (N, C, h, w).
        student: Levels of the student on the grid and width of the teacher (eq. 8 and 9), with the same shape.

    Returns:
        A scalar.
    """
    return functional.mse_loss(student, teacher)


def distillation_losses(
    teacher: DistilledFeatures, student: DistilledFeatures, weights: LossWeights, neighbourhood: int
) -> dict[str, torch.Tensor]:
    """All enabled losses, each as a scalar without its weight.

    Args:
        teacher: Outputs of the teachers for N images.
        student: Outputs of the student for the same images.
        weights: Weights of the losses; a loss of weight 0 is disabled and not computed.
        neighbourhood: Side p of the window in L_high.

    Returns:
        Losses by name: `low`, `high` and `logical`.
    """
    losses = {}
    if weights.low:
        losses["low"] = low_level_loss(teacher.levels, student.levels)
    if weights.high:
        losses["high"] = high_level_loss(teacher.levels, student.levels, neighbourhood)
    if weights.logical:
        losses["logical"] = logical_loss(teacher.logical, student.logical)
    return losses


def weighted_sum(losses: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """The training objective: the losses of eq. 5 and 10, each with a weight."""
    return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()
