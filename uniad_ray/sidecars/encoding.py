"""Encode the fields of single images as Parquet rows without loss: tensors, segments, vectors and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perception
from uniad_ray.perception.missing import Missing
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import Description

if TYPE_CHECKING:
    import torch

ValueT = TypeVar("ValueT")
Stage = Literal["features", "segments", "captions", "descriptions"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""Kinds of fields in the order of computation."""

Value: TypeAlias = "torch.Tensor | Segments | np.ndarray | str | Missing"
"""Value of a field for one image, or why it has no text."""

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "uint8": np.dtype("u1")}
_BOX: Final = ("top", "left", "bottom", "right")


def check_stage(name: str) -> Stage:
    """Return the name as a `Stage`.

    Raises:
        ConfigError: The stage is unknown.
    """
    for stage in STAGES:
        if stage == name:
            return stage
    raise ConfigError(f"no stage {name!r}; there are {', '.join(STAGES)}")


def by_stage(value: ValueT | Mapping[Stage, ValueT]) -> dict[Stage, ValueT]:
    """Return values by stage, from one value for all stages or from a mapping for some.

    Raises:
        ConfigError: There is no such stage.
    """
    if isinstance(value, Mapping):
        return {check_stage(stage): own for stage, own in value.items()}
    return dict.fromkeys(STAGES, value)


def stage_of(name: str) -> Stage:
    """Return the stage of a field by the last part of its name.

    `text` is a description (or a caption, see `stages.CategoryPipeline`); `segments` and `vectors` are segments; any
    other name is a feature.
    """
    match name.rpartition("/")[2]:
        case "text":
            return "descriptions"
        case "segments" | "vectors":
            return "segments"
        case _:
            return "features"


def encode_rows(stage: Stage, perception: Perception) -> list[dict[str, list[dict[str, Any]]]]:
    """Encode the fields of a batch as columns of the schema of the stage, one dictionary per image.

    Raises:
        ConfigError: The name of a field does not match its content.
    """
    columns = _COLUMNS[stage]
    held = {name for attribute, _, _ in columns.values() for name in getattr(perception, attribute)}
    held |= {name for name in perception.missing if stage_of(name) == "descriptions" and stage in _TEXTS}
    if wrong := sorted(perception.names - held):
        raise ConfigError(
            f"field {wrong[0]!r} does not hold {stage}, as its name says; name segments NAME/segments, vectors "
            "NAME/vectors and texts NAME/text, and no other field so"
        )
    rows = []
    for position, key in enumerate(perception.row_keys):
        lacks = {name: Missing(own[key]) for name, own in perception.missing.items() if key in own}
        row = {}
        for column, (attribute, encode, _) in columns.items():
            values = {name: own[position] for name, own in getattr(perception, attribute).items()}
            row[column] = [{"field": name, **encode(value)} for name, value in sorted((values | lacks).items())]
        rows.append(row)
    return rows


def decode_row(stage: Stage, row: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Value]:
    """Decode the fields of one image by name; the inverse of `encode_rows`.

    Raises:
        ValueError: A field has an unsupported dtype, or its parts are inconsistent.
    """
    return {
        entry["field"]: decode(entry) for column, (_, _, decode) in _COLUMNS[stage].items() for entry in row[column]
    }


def empty_row(stage: Stage) -> dict[str, list[Any]]:
    """Return the columns of an image without fields."""
    return {column: [] for column in _COLUMNS[stage]}


def _encode_array(values: np.ndarray) -> dict[str, Any]:
    name = values.dtype.name
    return {"dtype": name, "shape": list(values.shape), "data": values.astype(_DTYPES[name]).tobytes()}


def _decode_array(entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"field {entry['field']!r} has the dtype {entry['dtype']!r}")
    # Copy: the buffer of the row is read-only and unaligned.
    values: np.ndarray = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
    return values


def _encode_tensor(values: torch.Tensor) -> dict[str, Any]:
    return _encode_array(values.cpu().numpy())


def _decode_tensor(entry: Mapping[str, Any]) -> torch.Tensor:
    import torch

    return torch.from_numpy(_decode_array(entry))


def _encode_segments(segments: Segments) -> dict[str, Any]:
    height, width = segments.size
    names = segments.names or (None,) * len(segments)
    return {
        "height": height,
        "width": width,
        "segments": [
            {
                "id": int(segments.ids[row]),
                "name": names[row],
                "confidence": float(segments.confidences[row]),
                "area": float(segments.areas[row]),
                **{side: float(place) for side, place in zip(_BOX, segments.boxes[row], strict=True)},
                "mask": segments.packed[row].tobytes(),
            }
            for row in range(len(segments))
        ],
    }


def _decode_segments(entry: Mapping[str, Any]) -> Segments:
    found, size = entry["segments"], (entry["height"], entry["width"])
    names = [each["name"] for each in found]
    packed = np.frombuffer(b"".join(each["mask"] for each in found), np.uint8)
    arrays: dict[str, np.ndarray] = {
        "packed": packed.reshape(len(found), -(-size[0] * size[1] // 8)).copy(),
        "boxes": np.array([[each[side] for side in _BOX] for each in found], np.float32).reshape(len(found), 4),
        "areas": np.array([each["area"] for each in found], np.float32),
        "confidences": np.array([each["confidence"] for each in found], np.float32),
        "ids": np.array([each["id"] for each in found], np.int64),
    }
    return Segments.restored(arrays, size, () if None in names else names)


def _encode_text(text: str | Missing) -> dict[str, Any]:
    if isinstance(text, Missing):
        return {"text": None, "classes": None, "missing": text.reason}
    try:
        classes = [
            {
                "name": one.name,
                "count": one.count,
                "positions": [list(position) for position in one.positions],
                "size": one.size,
            }
            for one in Description.parse(text).classes
        ]
    except ValueError:
        return {"text": text, "classes": None, "missing": None}
    return {"text": text, "classes": classes, "missing": None}


def _decode_text(entry: Mapping[str, Any]) -> str | Missing:
    return Missing(entry["missing"]) if entry["text"] is None else str(entry["text"])


_Column = tuple[str, Callable[[Any], dict[str, Any]], Callable[[Mapping[str, Any]], Value]]

_TEXTS: Final = ("captions", "descriptions")

_COLUMNS: Final[dict[Stage, dict[str, _Column]]] = {
    "features": {"fields": ("fields", _encode_tensor, _decode_tensor)},
    "segments": {
        "segmentations": ("segments", _encode_segments, _decode_segments),
        "vectors": ("vectors", _encode_array, _decode_array),
    },
    "captions": {"descriptions": ("texts", _encode_text, _decode_text)},
    "descriptions": {"descriptions": ("texts", _encode_text, _decode_text)},
}
"""By stage and column: the attribute of `Perception`, and the encoder and decoder of the value of one image."""
