"""The state of Adam and AdamW as arrays by parameter: checkpoints need no pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

_MOMENTS = ("exp_avg", "exp_avg_sq")

Named = Sequence[tuple[str, nn.Parameter]]
"""Parameters and their names."""


def trained_parameters(network: nn.Module) -> Named:
    """The trainable parameters, by name."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def adam_arrays(optimiser: torch.optim.Optimizer, parameters: Named) -> tuple[dict[str, np.ndarray], int]:
    """Both moments of each parameter as `exp_avg/NAME` and `exp_avg_sq/NAME`, and the number of updates."""
    arrays: dict[str, np.ndarray] = {}
    updates = 0
    for name, parameter in parameters:
        # Empty if a scaler has skipped every step so far.
        if moments := optimiser.state[parameter]:
            arrays |= {f"{moment}/{name}": np.array(moments[moment].cpu().numpy()) for moment in _MOMENTS}
            updates = int(moments["step"])
    return arrays, updates


def restore_adam(
    optimiser: torch.optim.Optimizer, parameters: Named, arrays: Mapping[str, np.ndarray], updates: int
) -> None:
    """Loads the result of `adam_arrays` into an optimiser.

    Raises:
        KeyError: A moment is missing.
    """
    for name, parameter in parameters if updates else ():
        # Copy in the parameter's own memory layout, so that the same code visits elements in the same order.
        stored = {moment: torch.empty_like(parameter) for moment in _MOMENTS}
        for moment, target in stored.items():
            target.copy_(torch.from_numpy(np.array(arrays[f"{moment}/{name}"])))
        optimiser.state[parameter] = stored | {"step": torch.tensor(float(updates))}
