"""The contract between networks and experts: perceivers turn images into named fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch


@dataclass(frozen=True)
class Perception:
    """All that is known of one batch of N images.

    Attributes:
        row_keys: The N row keys of the archive, in order. Experts that sample take their randomness from these, so that
            the result depends on the images alone and not on their order or on the number of workers.
        images: uint8, shape (N, H, W, 3), RGB, at the input size of the profile.
        fields: Tensors by field name, such as `pyramid/level2`; float32, shape (N, C, h, w), on the perceiving device.
    """

    row_keys: Sequence[str]
    images: np.ndarray
    fields: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of images N."""
        return len(self.row_keys)


@dataclass(frozen=True)
class State:
    """What a perceiver or an expert learned, in a form that needs no pickle.

    Attributes:
        arrays: Named arrays; stored as safetensors.
        document: Whatever else, as JSON types.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Perceiver(Protocol):
    """One network, or one step computed from other fields."""

    name: str
    needs: frozenset[str]
    provides: frozenset[str]

    def perceive(self, perception: Perception) -> dict[str, torch.Tensor]:
        """Computes the provided fields of one batch.

        Args:
            perception: The batch with at least the fields in `needs`.

        Returns:
            One tensor for each name in `provides`.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """Where the fields come from, as JSON types; `weights` holds `uri`, `sha256` and whether they are `trained`."""
        ...
