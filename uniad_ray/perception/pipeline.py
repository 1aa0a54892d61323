"""Perceivers in the order of their needs: each runs at most once a batch, and only if somebody wants its fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perceiver, Perception


class PerceptionPipeline:
    """A fixed set of perceivers, checked once, run for any subset of their fields.

    Attributes:
        perceivers: In an order in which each comes after those it needs; as given, where the needs leave the choice.
        provides: All fields that can be wanted.
    """

    def __init__(self, perceivers: Sequence[Perceiver]) -> None:
        """Orders the perceivers.

        Raises:
            ConfigError: Two perceivers share a name or a field, a needed field is provided by none, or the needs form a
                cycle.
        """
        self._provider = _providers(perceivers)
        self.perceivers = _ordered(perceivers, self._provider)
        self.provides = frozenset(self._provider)

    def perceivers_for(self, wanted: frozenset[str]) -> tuple[Perceiver, ...]:
        """The perceivers that have to run for some fields, in order.

        Raises:
            ConfigError: A wanted field is provided by none.
        """
        _check_provided(wanted, self._provider, "the wanted fields")
        chosen: set[str] = set()
        open_fields = set(wanted)
        while open_fields:
            perceiver = self._provider[open_fields.pop()]
            if perceiver.name not in chosen:
                chosen.add(perceiver.name)
                open_fields |= perceiver.needs
        return tuple(perceiver for perceiver in self.perceivers if perceiver.name in chosen)

    def perceive(self, row_keys: Sequence[str], images: np.ndarray, wanted: frozenset[str]) -> Perception:
        """Computes the wanted fields of one batch.

        Args:
            row_keys: The N row keys of the images.
            images: uint8, shape (N, H, W, 3), RGB, N at least 1.
            wanted: Names of fields; may be empty, when only the images are used.

        Returns:
            The batch with the wanted fields and no others, so that memory holds nothing unused.

        Raises:
            ConfigError: A wanted field is provided by none.
            ValueError: The images have another shape or dtype, or their number is not that of the keys.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) == 0:
            raise ValueError(f"images must be uint8 (N, H, W, 3), N > 0, not {images.dtype} {images.shape}")
        if len(row_keys) != len(images):
            raise ValueError(f"{len(row_keys)} row keys were given for {len(images)} images")
        fields: dict[str, torch.Tensor] = {}
        for perceiver in self.perceivers_for(wanted):
            known = Perception(row_keys, images, {name: fields[name] for name in perceiver.needs})
            produced = perceiver.perceive(known)
            if produced.keys() != perceiver.provides:
                raise ValueError(
                    f"{perceiver.name} returned the fields {sorted(produced)} and promised {sorted(perceiver.provides)}"
                )
            fields |= produced
        return Perception(row_keys, images, {name: fields[name] for name in sorted(wanted)})

    def lineage(self, wanted: frozenset[str]) -> dict[str, Any]:
        """The lineage of each perceiver behind the wanted fields, by its name."""
        return {perceiver.name: perceiver.lineage() for perceiver in self.perceivers_for(wanted)}


def _providers(perceivers: Sequence[Perceiver]) -> dict[str, Perceiver]:
    """The one perceiver of each field."""
    provider: dict[str, Perceiver] = {}
    names: set[str] = set()
    for perceiver in perceivers:
        if perceiver.name in names:
            raise ConfigError(f"two perceivers are called {perceiver.name!r}; give each its own name")
        names.add(perceiver.name)
        for name in sorted(perceiver.provides):
            if name in provider:
                raise ConfigError(
                    f"the field {name!r} is provided by both {provider[name].name!r} and {perceiver.name!r}; remove one"
                )
            provider[name] = perceiver
    return provider


def _ordered(perceivers: Sequence[Perceiver], provider: dict[str, Perceiver]) -> tuple[Perceiver, ...]:
    for perceiver in perceivers:
        _check_provided(perceiver.needs, provider, f"the needs of the perceiver {perceiver.name!r}")
    ordered: list[Perceiver] = []
    available: set[str] = set()
    waiting = list(perceivers)
    while waiting:
        ready = next((perceiver for perceiver in waiting if perceiver.needs <= available), None)
        if ready is None:
            names = ", ".join(sorted(perceiver.name for perceiver in waiting))
            raise ConfigError(f"the perceivers {names} wait for each other's fields; break the cycle of their needs")
        waiting.remove(ready)
        ordered.append(ready)
        available |= ready.provides
    return tuple(ordered)


def _check_provided(names: Iterable[str], provider: dict[str, Perceiver], whose: str) -> None:
    missing = sorted(set(names) - provider.keys())
    if missing:
        provided = ", ".join(sorted(provider)) or "none"
        raise ConfigError(f"{whose} include {', '.join(missing)}, which no perceiver provides; provided are {provided}")
