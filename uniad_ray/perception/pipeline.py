"""Perceivers in the order of their needs: each runs at most once a batch, and only if somebody wants its fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import AskingPerceiver, Perceiver, Perception, State, StatefulPerceiver, StoredFields


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

    @property
    def stateful(self) -> tuple[StatefulPerceiver, ...]:
        """The perceivers that have to be fitted, trained or restored before they perceive, in order."""
        return tuple(perceiver for perceiver in self.perceivers if isinstance(perceiver, StatefulPerceiver))

    @property
    def dependent(self) -> tuple[Perceiver, ...]:
        """The stateful perceivers and those that need a field of one, directly or not, in order."""
        return self._downstream(self.stateful)

    @property
    def asking(self) -> tuple[AskingPerceiver, ...]:
        """The perceivers that ask a vision-language model, in order."""
        return tuple(
            perceiver
            for perceiver in self.perceivers
            if isinstance(perceiver, AskingPerceiver) and perceiver.captioner is not None
        )

    @property
    def awaiting_texts(self) -> tuple[Perceiver, ...]:
        """The perceivers that ask and those that need a field of one, directly or not, in order."""
        return self._downstream(self.asking)

    def perceivers_for(self, wanted: frozenset[str], given: frozenset[str] = frozenset()) -> tuple[Perceiver, ...]:
        """The perceivers that have to run for some fields where others are there already, in order.

        Raises:
            ConfigError: A wanted field is provided by none.
        """
        _check_provided(wanted - given, self._provider, "the wanted fields")
        chosen: set[str] = set()
        open_fields = set(wanted - given)
        while open_fields:
            perceiver = self._provider[open_fields.pop()]
            if perceiver.name not in chosen:
                chosen.add(perceiver.name)
                open_fields |= perceiver.needs - given
        return tuple(perceiver for perceiver in self.perceivers if perceiver.name in chosen)

    def perceive(
        self,
        row_keys: Sequence[str],
        images: np.ndarray,
        wanted: frozenset[str],
        stored: StoredFields | None = None,
    ) -> Perception:
        """Computes the wanted fields of one batch, or takes them from those that are stored.

        Args:
            row_keys: The N row keys of the images.
            images: uint8, shape (N, H, W, 3), RGB, N at least 1.
            wanted: Names of fields; may be empty, when only the images are used.
            stored: Fields of this pipeline that were computed before; nothing that only they need runs.

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
        perception = Perception(row_keys, images)
        if stored is not None:
            running = self.perceivers_for(wanted, stored.names)
            read = wanted.union(*(perceiver.needs for perceiver in running)) & stored.names
            perception = perception.extended(stored.read(row_keys, read)) if read else perception
        return self.extend(perception, wanted)

    def extend(self, perception: Perception, wanted: frozenset[str]) -> Perception:
        """Computes those of the wanted fields that a batch does not have yet.

        Returns:
            The batch with the wanted fields and no others.

        Raises:
            ConfigError: A wanted field is neither there nor provided.
        """
        known = perception
        for perceiver in self.perceivers_for(wanted, perception.names):
            produced = perceiver.perceive(known.restricted(perceiver.needs))
            if produced.keys() != perceiver.provides:
                raise ValueError(
                    f"{perceiver.name} returned the fields {sorted(produced)} and promised {sorted(perceiver.provides)}"
                )
            known = known.extended(produced)
        return known.restricted(wanted)

    def _downstream(self, sources: Sequence[Perceiver]) -> tuple[Perceiver, ...]:
        found: list[Perceiver] = []
        fields: set[str] = set()
        for perceiver in self.perceivers:
            if perceiver in sources or perceiver.needs & fields:
                found.append(perceiver)
                fields |= perceiver.provides
        return tuple(found)

    def states(self) -> dict[str, State]:
        """What the stateful perceivers learned, by name."""
        return {perceiver.name: perceiver.state() for perceiver in self.stateful}

    def restore(self, states: Mapping[str, State]) -> None:
        """Takes over what the stateful perceivers of an equal pipeline learned.

        Raises:
            KeyError: A state is missing.
        """
        for perceiver in self.stateful:
            perceiver.restore(states[perceiver.name])

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
