"""Checks of an expert's input fields: finite values in the fit, unchanged shapes in scoring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch

from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception


def require_finite(expert: str, row_key: str, features: torch.Tensor) -> None:
    """Rejects an image of a fit with non-finite features.

    Raises:
        FitError: A feature is NaN or infinite.
    """
    if not bool(torch.isfinite(features).all()):
        raise FitError(
            f"{expert}: image {row_key} has features that are not finite; remove the image or check the weights"
        )


class FieldShapes:
    """Records the field shapes (C, h, w) of a fit and checks every scored perception against them."""

    def __init__(self, expert: str, fields: Iterable[str]) -> None:
        """Starts without shapes.

        Args:
            expert: Name of the expert, for messages.
            fields: Names of the fields to check.
        """
        self._expert = expert
        self._fields = sorted(fields)
        self._shapes: dict[str, tuple[int, ...]] = {}

    def observe(self, perception: Perception) -> None:
        """Records one batch of a fit.

        Raises:
            FitError: A field has another shape than in earlier batches.
        """
        self._take(self._of(perception), f" for image {perception.row_keys[0]}")

    def merge(self, other: FieldShapes) -> None:
        """Merges the shapes of another part of a fit.

        Raises:
            FitError: A field has another shape than in earlier parts.
        """
        self._take(other._shapes, "")

    def check(self, perception: Perception) -> None:
        """Checks one batch against the fit.

        Raises:
            BundleError: A field has another shape than in the fit.
        """
        shapes = self._of(perception)
        if shapes != self._shapes:
            raise BundleError(
                f"{self._expert}: fitted on fields of shape {self._shapes} but the image has {shapes}; "
                "score with the networks and the image size of the bundle, or fit again"
            )

    def __getitem__(self, name: str) -> tuple[int, ...]:
        """The shape (C, h, w) of a field."""
        return self._shapes[name]

    def document(self) -> dict[str, list[int]]:
        """The shapes as JSON types."""
        return {name: list(shape) for name, shape in self._shapes.items()}

    @classmethod
    def from_document(cls, expert: str, document: Mapping[str, Sequence[int]]) -> Self:
        """Restores the shapes from `document`."""
        shapes = cls(expert, document)
        shapes._shapes = {name: tuple(shape) for name, shape in document.items()}
        return shapes

    def _take(self, shapes: Mapping[str, tuple[int, ...]], which: str) -> None:
        for name, shape in shapes.items():
            if shape != self._shapes.setdefault(name, shape):
                raise FitError(
                    f"{self._expert}: {name} has shape {shape}{which} but {self._shapes[name]} before; "
                    "give all images of a category the same size"
                )

    def _of(self, perception: Perception) -> dict[str, tuple[int, ...]]:
        return {name: tuple(map(int, perception.fields[name].shape[1:])) for name in self._fields}
