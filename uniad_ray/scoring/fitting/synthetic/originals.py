"""Originals of synthetic anomalies, for extractors that read image files: the change is enlarged, the detail stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from uniad_ray.archive.images import decode_image, probe_image
from uniad_ray.perception.base import Originals


class Change(NamedTuple):
    """A synthetic anomaly.

    Attributes:
        row_key: Key of the image that it was made from.
        before: That image at the image size of the category, uint8, shape (H, W, 3).
        after: The synthetic anomaly, of the same shape.
    """

    row_key: str
    before: np.ndarray
    after: np.ndarray


class SyntheticOriginals(Mapping[str, np.ndarray]):
    """The synthetic anomalies of a batch at the size of their image files, each made when it is read.

    Where nothing was changed, an image equals its file. An enlarged anomaly would differ from it everywhere, because it
    lacks the detail.
    """

    def __init__(self, changes: Mapping[str, Change], originals: Originals) -> None:
        """Keeps the arguments.

        Args:
            changes: The synthetic anomalies by key.
            originals: Image files by the key of the image; those without one are left out.
        """
        self._changes = {key: change for key, change in changes.items() if change.row_key in originals}
        self._originals = originals

    def __getitem__(self, key: str) -> np.ndarray:
        """The anomaly: uint8, shape (H, W, 3) of the file.

        Raises:
            KeyError: There is no file of the image.
        """
        row_key, before, after = self._changes[key]
        found = self._originals[row_key]
        if isinstance(found, bytes):
            info = probe_image(found)
            found = decode_image(found, (info.height, info.width))
        height, width = found.shape[:2]
        result = found.copy()
        for channel in range(3):
            change = Image.fromarray(after[..., channel].astype(np.float32) - before[..., channel])
            enlarged = np.asarray(change.resize((width, height), Image.Resampling.BILINEAR))
            result[..., channel] = np.clip(np.rint(found[..., channel] + enlarged), 0, 255)
        return result

    def __iter__(self) -> Iterator[str]:
        """The keys of the anomalies with a file."""
        return iter(self._changes)

    def __len__(self) -> int:
        """Number of anomalies with a file."""
        return len(self._changes)
