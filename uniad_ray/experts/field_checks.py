"""What every expert asks of its fields: finite values at the fit, and the shapes of the fit at scoring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch

from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception


def require_finite(expert: str, row_key: str, features: torch.Tensor) -> None:
    """Refuses an image of a fit whose features are not finite.

    Raises:
        FitError: A feature is NaN or infinite.
    """
    if not bool(torch.isfinite(features).all()):
        raise FitError(
            f"{expert}: image {row_key} has features that are not finite; remove the image or check the weights"
        )


class FieldShapes:
    """Learns the shapes (C, h, w) of fields while fitting and holds every perception at scoring to them."""

    def __init__(self, expert: str, fields: Iterable[str]) -> None:
        """Knows no shape yet.

        Args:
            expert: Name of the expert, for messages.
            fields: The fields to watch.
        """
        self._expert = expert
        self._fields = sorted(fields)
        self._shapes: dict[str, tuple[int, ...]] = {}

    def observe(self, perception: Perception) -> None:
        """Takes in one batch of a fit.

        Raises:
            FitError: A field has another shape than in the batches before.
        """
        self._take(self._of(perception), f" for image {perception.row_keys[0]}")

    def merge(self, other: FieldShapes) -> None:
        """Takes in the shapes of another part of a fit.

        Raises:
            FitError: A field has another shape than in the parts before.
        """
        self._take(other._shapes, "")

    def check(self, perception: Perception) -> None:
        """Compares one batch with the fit.

        Raises:
            BundleError: A field has another shape than at the fit.
        """
        shapes = self._of(perception)
        if shapes != self._shapes:
            raise BundleError(
                f"{self._expert}: fitted on fields of shape {self._shapes} but the image has {shapes}; "
                "score with the networks and the input size of the bundle, or fit again"
            )

    def __getitem__(self, name: str) -> tuple[int, ...]:
        """The shape (C, h, w) of a field."""
        return self._shapes[name]

    def document(self) -> dict[str, list[int]]:
        """The shapes as JSON types."""
        return {name: list(shape) for name, shape in self._shapes.items()}

    @classmethod
    def from_document(cls, expert: str, document: Mapping[str, Sequence[int]]) -> Self:
        """Restores what `document` gave."""
        shapes = cls(expert, document)
        shapes._shapes = {name: tuple(shape) for name, shape in document.items()}
        return shapes

    def _take(self, shapes: Mapping[str, tuple[int, ...]], which: str) -> None:
        for name, shape in shapes.items():
            if shape != self._shapes.setdefault(name, shape):
                raise FitError(
                    f"{self._expert}: {name} has shape {shape}{which} but {self._shapes[name]} for those before; "
                    "give all images of a category the same input size"
                )

    def _of(self, perception: Perception) -> dict[str, tuple[int, ...]]:
        return {name: tuple(map(int, perception.fields[name].shape[1:])) for name in self._fields}
