"""The contract between networks and experts: extractors turn images into named fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.missing import Missing, filled, gaps
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
        missing: Why images lack a field: reasons by row key, by field name. Their values in the field are neutral (NaN,
            or empty) and mean nothing. A field that all images lack is only listed here.
        originals: Images before they were stretched to the image size, by row key: encoded files, or uint8 arrays of
            shape (H, W, 3). May be empty, or lack some images.
    """

    row_keys: Sequence[str]
    images: np.ndarray
    fields: Mapping[str, torch.Tensor] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    segments: Mapping[str, Sequence[Segments]] = field(default_factory=dict)
    vectors: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    originals: Originals = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of images N."""
        return len(self.row_keys)

    @property
    def names(self) -> frozenset[str]:
        """The names of all fields in the batch, of every kind, including those that images lack."""
        return frozenset(self.missing).union(*(getattr(self, kind) for kind in _KINDS))

    def row(self, index: int) -> Perception:
        """A batch with only one of the images."""
        return self.select([index])

    def select(self, rows: Sequence[int]) -> Perception:
        """A batch with some of the images, in the given order."""
        keys = [self.row_keys[row] for row in rows]
        kinds: dict[str, dict[str, Any]] = {
            kind: {name: _picked(held, rows) for name, held in getattr(self, kind).items()} for kind in _KINDS
        }
        missing = {
            name: {key: reason for key, reason in reasons.items() if key in set(keys)}
            for name, reasons in self.missing.items()
        }
        missing = {name: reasons for name, reasons in missing.items() if reasons}
        return Perception(keys, _picked(self.images, rows), **kinds, missing=missing, originals=self.originals)

    def lacking(self, needs: Collection[str]) -> dict[str, str]:
        """The reasons of the images that lack one of some fields, by row key."""
        found: dict[str, str] = {}
        for name in sorted(self.missing.keys() & set(needs)):
            found = {**self.missing[name], **found}
        return found

    def complete(self, needs: Collection[str]) -> Perception:
        """A batch with the images that lack none of some fields; may be empty."""
        lacking = self.lacking(needs)
        if not lacking:
            return self
        return self.select([row for row, key in enumerate(self.row_keys) if key not in lacking])

    def restricted(self, names: Collection[str]) -> Perception:
        """The batch with only the named fields; unknown names are ignored."""
        kinds = {
            kind: {name: values for name, values in sorted(getattr(self, kind).items()) if name in names}
            for kind in (*_KINDS, "missing")
        }
        return self._with(kinds)

    def extended(self, produced: Fields) -> Perception:
        """The batch with additional fields; the type of the values decides the kind of each field."""
        kinds: dict[str, dict[str, Any]] = {kind: dict(getattr(self, kind)) for kind in (*_KINDS, "missing")}
        values: Any
        for name, values in produced.items():
            lacking = {} if _is_tensor(values) else gaps(self.row_keys, values)
            if lacking:
                kinds["missing"][name] = lacking
            if len(lacking) == len(self.row_keys) > 0:
                continue
            kinds[_kind(values)][name] = filled(values) if lacking or _is_list_of_tensors(values) else values
        return self._with(kinds)

    def joined(self, other: Perception) -> Perception:
        """The batch merged with the fields of another batch of the same images."""
        return self._with(
            {kind: {**getattr(self, kind), **getattr(other, kind)} for kind in (*_KINDS, "missing")},
        )

    def _with(self, kinds: Mapping[str, Mapping[str, Any]]) -> Perception:
        return Perception(self.row_keys, self.images, **kinds, originals=self.originals)


_KINDS: Final = ("fields", "texts", "segments", "vectors")


def _kind(values: torch.Tensor | Sequence[Any]) -> str:
    if _is_tensor(values) or _is_list_of_tensors(values):
        return "fields"
    example = next(value for value in values if not isinstance(value, Missing))
    if isinstance(example, str):
        return "texts"
    return "segments" if isinstance(example, Segments) else "vectors"


def _is_tensor(values: Any) -> bool:
    import torch

    return isinstance(values, torch.Tensor)


def _is_list_of_tensors(values: Any) -> bool:
    return not _is_tensor(values) and any(_is_tensor(value) for value in values)


def _picked(values: Any, rows: Sequence[int]) -> Any:
    """Some entries of a tensor, an array or a sequence; neighbouring ones without a copy."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows)) if rows else []):
        return values[rows[0] : rows[0] + len(rows)] if rows else values[:0]
    return values[list(rows)] if hasattr(values, "shape") else [values[row] for row in rows]


Originals: TypeAlias = "Mapping[str, bytes | np.ndarray]"
"""Images as they were before they were stretched, by row key: encoded files, or uint8 arrays, shape (H, W, 3), RGB."""

PerceptionStream = Callable[[], Iterable[Perception]]
"""Starts a new pass over the batches of normal images each time it is called."""

Fields: TypeAlias = (
    "Mapping[str, torch.Tensor | Sequence[torch.Tensor | Missing] | Sequence[str | Missing]"
    " | Sequence[Segments | Missing] | Sequence[np.ndarray | Missing]]"
)
"""Output of an extractor by field name: a tensor with one entry per image, or N texts, segments or vector arrays.

`Missing` in a list stands for an image without a value.
"""


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
