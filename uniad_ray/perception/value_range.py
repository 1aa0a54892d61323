"""Originals with more than 8 bits, as extractors that read the image files see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from uniad_ray.archive.images import DEFAULT_LIMITS, decode_image, probe_image
from uniad_ray.archive.images.sixteen_bits import file_has_sixteen_bits
from uniad_ray.config.value_range import ValueRange
from uniad_ray.perception.base import Originals


def in_value_range(originals: Originals, value_range: ValueRange | None) -> Originals:
    """Originals of which those with 16 bits a channel are decoded in a range of values when they are read.

    Args:
        originals: Encoded files or uint8 arrays by row key.
        value_range: Values that become black and white; None returns the originals as they are.
    """
    return originals if value_range is None else _ScaledOriginals(originals, value_range)


class _ScaledOriginals(Mapping[str, "bytes | np.ndarray"]):
    def __init__(self, originals: Originals, value_range: ValueRange) -> None:
        self._originals = originals
        self._value_range = value_range

    def __getitem__(self, row_key: str) -> bytes | np.ndarray:
        found = self._originals[row_key]
        if not isinstance(found, bytes) or not file_has_sixteen_bits(found, DEFAULT_LIMITS):
            return found
        info = probe_image(found)
        return decode_image(found, (info.height, info.width), value_range=self._value_range)

    def __iter__(self) -> Iterator[str]:
        return iter(self._originals)

    def __len__(self) -> int:
        return len(self._originals)
