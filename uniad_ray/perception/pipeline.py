"""The extractor pipeline: each extractor runs at most once per batch, and only if its fields are requested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import (
    AskingExtractor,
    Extractor,
    Fields,
    Originals,
    Perception,
    State,
    StatefulExtractor,
    StoredFields,
)
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.region import Region
from uniad_ray.perception.value_range import in_value_range


class PerceptionPipeline:
    """A fixed set of extractors, checked once, that computes any subset of their fields.

    Attributes:
        extractors: In topological order of their needs; otherwise in the given order.
        region: Part of the images that counts; None if all of it does.
        value_range: Values of 16-bit images that become black and white; None for images with 8 bits.
        provides: All fields that can be requested.
    """

    def __init__(
        self,
        extractors: Sequence[Extractor],
        region: Region | None = None,
        value_range: ValueRange | None = None,
    ) -> None:
        """Orders the extractors.

        Args:
            extractors: The extractors.
            region: Part of the images that counts; everything else is painted before an extractor sees it.
            value_range: Range of the values of 16-bit originals; see `decode_image`.

        Raises:
            ConfigError: Two extractors share a name or a field, no extractor provides a needed field, or the needs form
                a cycle.
        """
        self._provider = _providers(extractors)
        self.extractors = _ordered(extractors, self._provider)
        self.provides = frozenset(self._provider)
        self.region = region
        self.value_range = value_range

    @property
    def stateful(self) -> tuple[StatefulExtractor, ...]:
        """The extractors that must be fitted, trained or restored before they extract, in order."""
        return tuple(extractor for extractor in self.extractors if isinstance(extractor, StatefulExtractor))

    @property
    def dependent(self) -> tuple[Extractor, ...]:
        """The stateful extractors and all extractors that depend on them, directly or not, in order."""
        return self._downstream(self.stateful)

    @property
    def asking(self) -> tuple[AskingExtractor, ...]:
        """The extractors that query a vision-language model, in order."""
        return tuple(
            extractor
            for extractor in self.extractors
            if isinstance(extractor, AskingExtractor) and extractor.captioner is not None
        )

    @property
    def detailed(self) -> tuple[Extractor, ...]:
        """The extractors that read image files for detail that the decoded images lack, in order."""
        return tuple(extractor for extractor in self.extractors if getattr(extractor, "reads_originals", False))

    @property
    def reads_originals(self) -> bool:
        """Whether an extractor reads the images as they were before they were stretched."""
        return bool(self.asking or self.detailed)

    @property
    def awaiting_texts(self) -> tuple[Extractor, ...]:
        """The extractors in `asking` and all extractors that depend on them, directly or not, in order."""
        return self._downstream(self.asking)

    def extractors_for(self, wanted: frozenset[str], given: frozenset[str] = frozenset()) -> tuple[Extractor, ...]:
        """The extractors that must run to compute the wanted fields from the given ones, in order.

        Raises:
            ConfigError: No extractor provides a wanted field.
        """
        _check_provided(wanted - given, self._provider, "the wanted fields")
        chosen: set[str] = set()
        open_fields = set(wanted - given)
        while open_fields:
            extractor = self._provider[open_fields.pop()]
            if extractor.name not in chosen:
                chosen.add(extractor.name)
                open_fields |= extractor.needs - given
        return tuple(extractor for extractor in self.extractors if extractor.name in chosen)

    def extract(
        self,
        row_keys: Sequence[str],
        images: np.ndarray,
        wanted: frozenset[str],
        stored: StoredFields | None = None,
        originals: Originals | None = None,
    ) -> Perception:
        """Computes the wanted fields of one batch; stored fields are read instead.

        Args:
            row_keys: The N row keys of the images.
            images: uint8, shape (N, H, W, 3), RGB, N at least 1.
            wanted: Names of fields; empty if only the images are needed.
            stored: Precomputed fields of this pipeline. Extractors needed only for these fields do not run.
            originals: The images before they were stretched, for extractors that read them.

        Returns:
            The batch with the wanted fields alone; unused fields are freed.

        Raises:
            ConfigError: No extractor provides a wanted field.
            ValueError: The images have a wrong shape or dtype, or the numbers of images and keys differ.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) == 0:
            raise ValueError(f"images must be uint8 (N, H, W, 3), N > 0, not {images.dtype} {images.shape}")
        if len(row_keys) != len(images):
            raise ValueError(f"got {len(row_keys)} row keys for {len(images)} images; pass one key per image")
        if self.region is not None:
            images = self.region.painted(images)
        perception = Perception(row_keys, images, originals=self.seen_originals(originals or {}))
        if stored is not None:
            running = self.extractors_for(wanted, stored.names)
            read = wanted.union(*(extractor.needs for extractor in running)) & stored.names
            perception = perception.extended(stored.read(row_keys, read)) if read else perception
        return self.extend(perception, wanted)

    def seen_originals(self, originals: Originals) -> Originals:
        """The originals as the extractors see them: in the value range, and painted outside of the region."""
        originals = in_value_range(originals, self.value_range)
        return originals if self.region is None else self.region.originals(originals)

    def extend(self, perception: Perception, wanted: frozenset[str]) -> Perception:
        """Computes the wanted fields that a batch does not have yet.

        Returns:
            The batch with the wanted fields alone.

        Raises:
            ConfigError: A wanted field is not in the batch and no extractor provides it.
            ValueError: An extractor returns other fields than it provides.
        """
        known = perception
        for extractor in self.extractors_for(wanted, perception.names):
            produced = _extract_complete(extractor, known.restricted(extractor.needs))
            if produced.keys() != extractor.provides:
                raise ValueError(
                    f"{extractor.name} returned the fields {sorted(produced)}, expected {sorted(extractor.provides)}"
                )
            known = known.extended(produced)
        return known.restricted(wanted)

    def _downstream(self, sources: Sequence[Extractor]) -> tuple[Extractor, ...]:
        found: list[Extractor] = []
        fields: set[str] = set()
        for extractor in self.extractors:
            if extractor in sources or extractor.needs & fields:
                found.append(extractor)
                fields |= extractor.provides
        return tuple(found)

    def states(self) -> dict[str, State]:
        """The states of the stateful extractors, by name."""
        return {extractor.name: extractor.state() for extractor in self.stateful}

    def restore(self, states: Mapping[str, State]) -> None:
        """Restores the states of the stateful extractors of an equal pipeline.

        Raises:
            KeyError: A state is missing.
        """
        for extractor in self.stateful:
            extractor.restore(states[extractor.name])

    def lineage(self, wanted: frozenset[str]) -> dict[str, Any]:
        """The lineage of each extractor that contributes to the wanted fields, by name."""
        return {extractor.name: extractor.lineage() for extractor in self.extractors_for(wanted)}


def _extract_complete(extractor: Extractor, perception: Perception) -> Fields:
    """Extract the images that lack no needed field; the others lack what depends on it."""
    lacking = perception.lacking(extractor.needs)
    if not lacking:
        return extractor.extract(perception)
    complete = perception.complete(extractor.needs)
    produced: Fields = extractor.extract(complete) if len(complete) else {}
    place = {key: row for row, key in enumerate(complete.row_keys)}
    found: dict[str, Any] = {
        name: [Missing(lacking[key]) if key in lacking else produced[name][place[key]] for key in perception.row_keys]
        for name in (produced or extractor.provides)
    }
    return found


def _providers(extractors: Sequence[Extractor]) -> dict[str, Extractor]:
    """Maps each field to the extractor that provides it."""
    provider: dict[str, Extractor] = {}
    names: set[str] = set()
    for extractor in extractors:
        if extractor.name in names:
            raise ConfigError(f"two extractors are called {extractor.name!r}; rename one")
        names.add(extractor.name)
        for name in sorted(extractor.provides):
            if name in provider:
                raise ConfigError(
                    f"the field {name!r} is provided by both {provider[name].name!r} and {extractor.name!r}; remove one"
                )
            provider[name] = extractor
    return provider


def _ordered(extractors: Sequence[Extractor], provider: dict[str, Extractor]) -> tuple[Extractor, ...]:
    for extractor in extractors:
        _check_provided(extractor.needs, provider, f"the needs of the extractor {extractor.name!r}")
    ordered: list[Extractor] = []
    available: set[str] = set()
    waiting = list(extractors)
    while waiting:
        ready = next((extractor for extractor in waiting if extractor.needs <= available), None)
        if ready is None:
            names = ", ".join(sorted(extractor.name for extractor in waiting))
            raise ConfigError(f"the extractors {names} depend on each other; remove a field from the cycle")
        waiting.remove(ready)
        ordered.append(ready)
        available |= ready.provides
    return tuple(ordered)


def _check_provided(names: Iterable[str], provider: dict[str, Extractor], subject: str) -> None:
    missing = sorted(set(names) - provider.keys())
    if missing:
        provided = ", ".join(sorted(provider)) or "none"
        raise ConfigError(f"{subject} include {', '.join(missing)}, which no extractor provides; available: {provided}")
