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
    """One batch of N images and the fields computed from it.

    Attributes:
        row_keys: The N row keys of the archive, in order. Experts that sample derive their randomness from these keys.
            The result then depends neither on the order of the images nor on the number of workers.
        images: uint8, shape (N, H, W, 3), RGB, at the image size of the category.
        fields: Tensors by field name, such as `pyramid/level2`: shape (N, C, h, w), on the extracting device, float32.
            Label maps are uint8.
        texts: N texts by field name, such as `description/text`.
        segments: The `Segments` of each image by field name, such as `parts/segments`.
        vectors: One vector per segment, by field name: N arrays, each float32, shape (n, D).
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
        """The names of all fields in the batch, of every kind."""
        return frozenset().union(*(getattr(self, kind) for kind in _KINDS))

    def row(self, index: int) -> Perception:
        """A batch with only one of the images."""
        one = slice(index, index + 1)
        alone = Perception(self.row_keys[one], self.images[one])
        return alone._with({kind: {name: held[one] for name, held in getattr(self, kind).items()} for kind in _KINDS})

    def restricted(self, names: Collection[str]) -> Perception:
        """The batch with only the named fields; unknown names are ignored."""
        return self._with(
            {
                kind: {name: values for name, values in sorted(getattr(self, kind).items()) if name in names}
                for kind in _KINDS
            }
        )

    def extended(self, produced: Fields) -> Perception:
        """The batch with additional fields; the type of the values decides the kind of each field."""
        kinds: dict[str, dict[str, Any]] = {kind: dict(getattr(self, kind)) for kind in _KINDS}
        for name, values in produced.items():
            kinds[_kind(values)][name] = values
        return self._with(kinds)

    def joined(self, other: Perception) -> Perception:
        """The batch merged with the fields of another batch of the same images."""
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
"""Starts a new pass over the batches of normal images each time it is called."""

Fields: TypeAlias = "Mapping[str, torch.Tensor | Sequence[str] | Sequence[Segments] | Sequence[np.ndarray]]"
"""Output of an extractor by field name: a tensor with one entry per image, or N texts, segments or vector arrays."""


class StoredFields(Protocol):
    """Precomputed fields of images.

    Attributes:
        names: The fields that can be read instead of computed.
    """

    names: frozenset[str]

    def read(self, row_keys: Sequence[str], names: frozenset[str]) -> Fields:
        """Reads fields of some images.

        Args:
            row_keys: The images, at least one.
            names: A subset of the attribute `names`, at least one.

        Returns:
            The same output as an extractor for a batch of these images, with tensors on the CPU.
        """
        ...


@dataclass(frozen=True)
class State:
    """Learned state of an extractor or an expert, in a form that needs no pickle.

    Attributes:
        arrays: Named arrays; stored as safetensors.
        document: Everything else, as JSON types.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Extractor(Protocol):
    """One network, or one step computed from other fields.

    `ExtractorClass` lists what its class must define to be named in a configuration.

    Attributes:
        name: Its name in the configuration.
        needs: Names of the fields it reads.
        provides: Names of the fields it computes.
    """

    name: str
    needs: frozenset[str]
    provides: frozenset[str]

    def extract(self, perception: Perception) -> Fields:
        """Computes the provided fields of one batch; an image's fields do not depend on the rest of its batch.

        Args:
            perception: The batch with at least the fields in `needs`.

        Returns:
            For each name in `provides`: one tensor, or one text, `Segments` or vector array per image.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """The origin of the fields, as JSON types.

        An extractor with its own weights lists them under `weights`: `uri`, `sha256` and the flag `trained`.
        """
        ...


class ExtractorClass(Protocol):
    """Interface of an extractor class, as the loader uses it.

    Add `_: ExtractorClass = MyExtractor` to a file to let mypy check a class.
    """

    @property
    def config_model(self) -> type[StrictModel]:
        """The pydantic model of its options; a class variable. A field `seed` takes the top-level seed."""
        ...

    def __call__(self, name: str, config: Any, device: str, /) -> Extractor:
        """Constructs an extractor and loads its network, given options of type `config_model` and a torch device."""
        ...

    def fields_of(self, name: str, config: Any, /) -> frozenset[str]:
        """Returns the fields that an instance would provide, without loading its network; a class method."""
        ...


@runtime_checkable
class AskingExtractor(Extractor, Protocol):
    """An extractor that can query a vision-language model, which takes seconds and may be unavailable.

    Attributes:
        config: Its options; `captioner` configures the model.
        captioner: The model to query, or None if it queries none. Can be replaced before extraction.
    """

    config: Any
    captioner: Captioner | None


@runtime_checkable
class StatefulExtractor(Extractor, Protocol):
    """An extractor that learns from normal images; its state is part of the bundle."""

    def state(self) -> State:
        """The learned state."""
        ...

    def restore(self, state: State) -> None:
        """Restores the state of an instance with the same configuration."""
        ...


@runtime_checkable
class TrainedExtractor(StatefulExtractor, Protocol):
    """An extractor trained by a higher layer; `training_needs` are read in training but not in extraction."""

    training_needs: frozenset[str]


@runtime_checkable
class LearnedExtractor(StatefulExtractor, Protocol):
    """An extractor that fits itself to a stream of batches."""

    def fit(self, stream: PerceptionStream) -> None:
        """Learns from normal images in bounded memory.

        Args:
            stream: Batches with at least the fields in `needs`; may be iterated several times.
        """
        ...
