"""Fields that some images of a batch do not have, such as a text that no model has written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniad_ray.perception.segments import Segments


@dataclass(frozen=True)
class Missing:
    """Stands for the value of one image in the output of an extractor.

    An expert that needs the field is left out of the score of this image. Missing is not zero.

    Attributes:
        reason: Why the image has no value, in words.
    """

    reason: str


def gaps(row_keys: Sequence[str], values: Iterable[Any]) -> dict[str, str]:
    """The reasons of the missing values, by row key."""
    return {key: value.reason for key, value in zip(row_keys, values, strict=True) if isinstance(value, Missing)}


def filled(values: Sequence[Any]) -> Any:
    """The values of a field with a neutral value for each missing one, so that all images have the same form.

    Args:
        values: One tensor, text, `Segments` or vector array per image, or `Missing`; at least one is not missing.

    Returns:
        A tensor with NaN for missing rows (0 for integers), or a list with empty texts, segments and arrays.
    """
    import torch

    example = next(value for value in values if not isinstance(value, Missing))
    if isinstance(example, torch.Tensor):
        blank = torch.full_like(example, float("nan")) if example.is_floating_point() else torch.zeros_like(example)
        return torch.stack([blank if isinstance(value, Missing) else value for value in values])
    empty: Any = ""
    if isinstance(example, Segments):
        empty = example.select(np.zeros(len(example), dtype=bool))
    elif isinstance(example, np.ndarray):
        empty = example[:0]
    return [empty if isinstance(value, Missing) else value for value in values]
