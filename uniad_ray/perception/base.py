"""The contract between networks and experts: extractors turn images into named fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.segments import Segments

if TYPE_CHECKING:
    import torch

    from uniad_ray.perception.captions.base import Captioner


@dataclass(frozen=True)
class Perception:
    """All that is known of one batch of N images.

    Attributes:
        row_keys: The N row keys of the archive, in order. Experts that sample take their randomness from these, so that
            the result depends on the images alone and not on their order or on the number of workers.
        images: uint8, shape (N, H, W, 3), RGB, at the input size of the profile.
        fields: Tensors by field name, such as `pyramid/level2`; shape (N, C, h, w), on the extracting device; float32,
            but for maps of labels, which are uint8.
        texts: N texts by field name, such as `description/text`.
        segments: The `Segments` of each image by field name, such as `parts/segments`.
        vectors: Vectors of the n segments of each image by field name: N arrays, each float32, shape (n, D).
    """

    row_keys: Sequence[str]
    images: np.ndarray
    fields: Mapping[str, torch.Tensor] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    segments: Mapping[str, Sequence[Segments]] = field(default_factory=dict)
    vectors: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of images N."""
        return len(self.row_keys)

    @property
    def names(self) -> frozenset[str]:
        """The names of all fields that are there, of every kind."""
        return frozenset().union(*(getattr(self, kind) for kind in _KINDS))

    def row(self, index: int) -> Perception:
        """The batch of one of the images."""
        one = slice(index, index + 1)
        alone = Perception(self.row_keys[one], self.images[one])
        return alone._with({kind: {name: held[one] for name, held in getattr(self, kind).items()} for kind in _KINDS})

    def restricted(self, names: Collection[str]) -> Perception:
        """The batch with those of its fields that are among some names."""
        return self._with(
            {
                kind: {name: values for name, values in sorted(getattr(self, kind).items()) if name in names}
                for kind in _KINDS
            }
        )

    def extended(self, produced: Fields) -> Perception:
        """The batch with more fields, each told apart by what it holds."""
        kinds: dict[str, dict[str, Any]] = {kind: dict(getattr(self, kind)) for kind in _KINDS}
        for name, values in produced.items():
            kinds[_kind(values)][name] = values
        return self._with(kinds)

    def joined(self, other: Perception) -> Perception:
        """The batch with the fields of another perception of the same images."""
        return self._with({kind: {**getattr(self, kind), **getattr(other, kind)} for kind in _KINDS})

    def _with(self, kinds: Mapping[str, Mapping[str, Any]]) -> Perception:
        return Perception(self.row_keys, self.images, **kinds)


_KINDS: Final = ("fields", "texts", "segments", "vectors")


def _kind(values: torch.Tensor | Sequence[Any]) -> str:
    import torch

    if isinstance(values, torch.Tensor):
        return "fields"
    if isinstance(values[0], str):
        return "texts"
    return "segments" if isinstance(values[0], Segments) else "vectors"


PerceptionStream = Callable[[], Iterable[Perception]]
"""Starts a fresh pass over the normal perceptions each time it is called."""

Fields: TypeAlias = "Mapping[str, torch.Tensor | Sequence[str] | Sequence[Segments] | Sequence[np.ndarray]]"
"""Result of an extractor by field name: a tensor with one entry per image, or N texts, segments or vector arrays."""


class StoredFields(Protocol):
    """Fields of images that were computed before and kept.

    Attributes:
        names: The fields that may be taken instead of computing them.
    """

    names: frozenset[str]

    def read(self, row_keys: Sequence[str], names: frozenset[str]) -> Fields:
        """Fields of some images.

        Args:
            row_keys: The images, at least one.
            names: Some of `names`, at least one.

        Returns:
            What an extractor gives for a batch of these images, tensors on the CPU.
        """
        ...


@dataclass(frozen=True)
class State:
    """What an extractor or an expert learned, in a form that needs no pickle.

    Attributes:
        arrays: Named arrays; stored as safetensors.
        document: Whatever else, as JSON types.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Extractor(Protocol):
    """One network, or one step computed from other fields.

    What its class must have for a configuration to name it: see `ExtractorClass`.

    Attributes:
        name: Its name in the configuration.
        needs: Fields that it reads, by name.
        provides: Fields that it gives, by name.
    """

    name: str
    needs: frozenset[str]
    provides: frozenset[str]

    def extract(self, perception: Perception) -> Fields:
        """Computes the provided fields of one batch; an image's fields do not depend on the rest of its batch.

        Args:
            perception: The batch with at least the fields in `needs`.

        Returns:
            One tensor, or one text, segments or array of vectors an image, for each name in `provides`.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """Where the fields come from, as JSON types.

        Networks with weights of their own give them as `weights`: `uri`, `sha256` and whether they are `trained`.
        """
        ...


class ExtractorClass(Protocol):
    """The class of an extractor, as the loader uses it.

    mypy checks a class against it where a file says `_: ExtractorClass = MyExtractor`.
    """

    @property
    def config_model(self) -> type[StrictModel]:
        """The model of its options; a class variable. A field `seed` is set from the top level."""
        ...

    def __call__(self, name: str, config: Any, device: str, /) -> Extractor:
        """The constructor, with options of `config_model` and a torch device; loads the network."""
        ...

    def fields_of(self, name: str, config: Any, /) -> frozenset[str]:
        """A class method that names what an instance would provide, without loading its network."""
        ...


@runtime_checkable
class AskingExtractor(Extractor, Protocol):
    """An extractor that may ask a vision-language model, which takes seconds and may be away.

    Attributes:
        config: Its options, of which `captioner` says what it asks.
        captioner: What it asks; None where it asks nothing. May be replaced before it extracts.
    """

    config: Any
    captioner: Captioner | None


@runtime_checkable
class StatefulExtractor(Extractor, Protocol):
    """An extractor that extracts with what was learned from normal images; its state is part of the bundle."""

    def state(self) -> State:
        """What was learned."""
        ...

    def restore(self, state: State) -> None:
        """Takes over what an instance of the same configuration has learned."""
        ...


@runtime_checkable
class TrainedExtractor(StatefulExtractor, Protocol):
    """An extractor that a layer above trains against the fields of others, which it does not need to extract."""

    training_needs: frozenset[str]


@runtime_checkable
class LearnedExtractor(StatefulExtractor, Protocol):
    """An extractor that learns by itself from a stream of perceptions."""

    def fit(self, stream: PerceptionStream) -> None:
        """Learns from normal images in bounded memory.

        Args:
            stream: Perceptions with at least the fields in `needs`; may be passed over several times.
        """
        ...
