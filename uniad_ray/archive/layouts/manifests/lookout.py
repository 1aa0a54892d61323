"""Lines of Amazon's Lookout for Vision, which SageMaker Ground Truth writes, too.

https://docs.aws.amazon.com/lookout-for-vision/latest/developer-guide/manifest-files.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from uniad_ray.archive.layouts.manifests.listed import LineError, ListedImage, metadata_of, parse_label, required_text

IMAGE = "source-ref"
"""The key that only these lines have."""
_METADATA = "-metadata"
_COLORS = "internal-color-map"
_COLOR = re.compile("#[0-9a-f]{6}")
_BACKGROUND = "background"
MAX_CLASSES = 255
"""Maximum number of classes of a mask, without the background."""


def lookout_image(values: Mapping[str, Any]) -> ListedImage:
    """Reads a line of Lookout for Vision.

    The job chooses the names of the label (`anomaly-label`) and of the mask (`anomaly-mask-ref`), so they are found by
    their metadata: a `class-name` makes a label, an `internal-color-map` a mask. The number in the label has no
    meaning. Other keys are metadata of the image.

    Raises:
        LineError: A value is missing or wrong.
    """
    described = {
        name.removesuffix(_METADATA): value
        for name, value in values.items()
        if name.endswith(_METADATA) and isinstance(value, dict)
    }
    labels = [name for name, about in described.items() if "class-name" in about]
    masks = [name for name, about in described.items() if _COLORS in about and name in values]
    if len(labels) > 1 or len(masks) > 1:
        raise LineError(f"several labels or masks: {', '.join((*labels, *masks))}; keep one of each")
    read = {IMAGE, *described, *(name + _METADATA for name in described)}
    return ListedImage(
        path=required_text(values, IMAGE),
        masks=tuple(required_text(values, name) for name in masks),
        label=parse_label(required_text(described[labels[0]], "class-name")) if labels else None,
        metadata=metadata_of((name, value) for name, value in values.items() if name not in read),
        mask_classes=_mask_classes(described[masks[0]][_COLORS]) if masks else (),
    )


def _mask_classes(colors: Any) -> tuple[tuple[str, str], ...]:
    """Colours and names of the classes, the background first with an empty name."""
    if not isinstance(colors, dict) or not all(isinstance(about, dict) for about in colors.values()):
        raise LineError(f"{_COLORS} is not an object of classes")
    classes: dict[str, str] = {}
    background = "#ffffff"
    for about in colors.values():
        name, color = required_text(about, "class-name"), required_text(about, "hex-color").lower()
        if not _COLOR.fullmatch(color):
            raise LineError(f"hex-color {color[:40]!r} of class {name[:100]!r} is not of the form #2ca02c")
        if name.lower() == _BACKGROUND:
            background = color
        elif color in classes:
            raise LineError(f"hex-color {color} belongs to two classes")
        else:
            classes[color] = name
    if len(classes) > MAX_CLASSES or background in classes:
        raise LineError(f"{_COLORS}: at most {MAX_CLASSES} classes, none in the color of the background {background}")
    return ((background, ""), *classes.items())
