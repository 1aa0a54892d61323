"""What a line of a manifest says of its image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from uniad_ray.archive.layouts.entries import Label, Split
from uniad_ray.errors import UniadRayError

KNOWN_METADATA = frozenset({"serial", "line", "camera", "lot", "time"})
"""Metadata columns with a meaning of their own; found in any case, kept in lower case."""
MAX_METADATA = 64
"""Maximum number of metadata columns of an image."""
MAX_NAME = 100
MAX_VALUE = 1000
"""Maximum numbers of characters of a metadata column's name and value."""
_NORMAL = frozenset({"normal", "good", "ok"})
_ANOMALOUS = frozenset({"anomalous", "anomaly", "defect", "defective", "bad", "ng", "nok"})
_COLUMNS = frozenset({"path", "label", "mask", "split", "category", "defect_kind", "anomaly_type"})
_ANOMALY_TYPES = ("logical", "structural")


class LineError(UniadRayError):
    """A line of a manifest cannot be used; the message is the reason."""


@dataclass(frozen=True)
class ListedImage:
    """An image of a manifest.

    Attributes:
        path: URI, absolute path, or path relative to the source.
        masks: The same for each mask.
        label: `normal`, `anomalous`, or None.
        split: Split; None if the manifest does not give one.
        category: Category; None if the manifest does not give one.
        defect_kind: Name of the defect, several joined by `+`; or None.
        anomaly_type: `logical`, `structural` or None.
        metadata: Names and values of the further columns, in order.
        mask_classes: Colours of the masks as `#rrggbb` with the defect of each, background first with an empty name;
            empty for masks of grey values.
    """

    path: str
    masks: tuple[str, ...] = ()
    label: Label | None = None
    split: Split | None = None
    category: str | None = None
    defect_kind: str | None = None
    anomaly_type: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    mask_classes: tuple[tuple[str, str], ...] = ()


def listed_image(values: Mapping[str, Any]) -> ListedImage:
    """Reads a line with the columns of this project; every further column is metadata.

    Args:
        values: Values by column.

    Raises:
        LineError: A value is missing or wrong.
    """
    names = [name.lower() for name in values if name.lower() in _COLUMNS]
    if len(set(names)) < len(names):
        raise LineError(f"column {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    known = {name.lower(): value for name, value in values.items() if name.lower() in _COLUMNS}
    label = parse_label(_text(known, "label"))
    defect_kind, anomaly_type = _text(known, "defect_kind"), _text(known, "anomaly_type")
    if (defect_kind or anomaly_type) and label != "anomalous":
        raise LineError("defect_kind and anomaly_type need the label anomalous")
    if anomaly_type not in (None, *_ANOMALY_TYPES):
        raise LineError(f"anomaly_type {anomaly_type!r} is none of {', '.join(_ANOMALY_TYPES)}")
    masks = known.get("mask")
    return ListedImage(
        path=required_text(known, "path"),
        masks=tuple(_path(mask) for mask in masks) if isinstance(masks, list) else _one(_text(known, "mask")),
        label=label,
        split=_split(_text(known, "split")),
        category=_text(known, "category"),
        defect_kind=defect_kind,
        anomaly_type=anomaly_type,
        metadata=metadata_of((name, value) for name, value in values.items() if name.lower() not in _COLUMNS),
    )


def parse_label(text: str | None) -> Label | None:
    """The label that a text means, in any case; None for no text.

    Raises:
        LineError: The text is no label.
    """
    if text is None:
        return None
    if text.lower() in _NORMAL:
        return "normal"
    if text.lower() in _ANOMALOUS:
        return "anomalous"
    raise LineError(f"label {text[:100]!r} is neither normal nor anomalous; leave it empty if it is unknown")


def required_text(values: Mapping[str, Any], name: str) -> str:
    """A text that must be there.

    Raises:
        LineError: It is missing, empty, or no text.
    """
    text = _text(values, name)
    if text is None:
        raise LineError(f"{name} is missing")
    return text


def metadata_of(columns: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    """The metadata of an image; empty values are left out, and numbers and booleans become text.

    Raises:
        LineError: A name or a value is too long or there are too many, a value is nested, two columns are the same, or
            `time` is not ISO 8601.
    """
    found: dict[str, str] = {}
    for name, value in columns:
        if isinstance(value, dict | list):
            raise LineError(f"column {name[:MAX_NAME]!r} holds a list or an object; use one text or number")
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        if not text:
            continue
        own = name.lower() if name.lower() in KNOWN_METADATA else name
        if own in found:
            raise LineError(f"column {own!r} occurs twice")
        if not own or len(own) > MAX_NAME or len(text) > MAX_VALUE:
            raise LineError(f"column {own[:40]!r}: at most {MAX_NAME} characters in a name, {MAX_VALUE} in a value")
        found[own] = text
    if len(found) > MAX_METADATA:
        raise LineError(f"{len(found)} metadata columns; at most {MAX_METADATA} are kept")
    if "time" in found:
        captured_at(found["time"])
    return tuple(found.items())


def captured_at(time: str) -> datetime:
    """The time of a manifest.

    Raises:
        LineError: It is not ISO 8601.
    """
    try:
        return datetime.fromisoformat(time)
    except ValueError as error:
        raise LineError(f"time {time[:40]!r} is not ISO 8601, such as 2026-11-29T23:04:05+01:00") from error


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise LineError(f"{name} is {json.dumps(value)[:100]}, not a text")
    return value


def _path(value: Any) -> str:
    return required_text({"mask": value}, "mask")


def _one(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


def _split(text: str | None) -> Split | None:
    if text is not None and text not in get_args(Split):
        raise LineError(f"split {text[:100]!r} is none of {', '.join(get_args(Split))}")
    return text  # type: ignore[return-value]
