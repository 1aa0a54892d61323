"""The captioner interface and the maximum length of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

MAX_CHARACTERS: Final = 4000
"""Captions are truncated to this length, in case a model repeats itself."""


class Captioner(Protocol):
    """Returns one text per image, from a vision-language model or from a table of stored captions."""

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> list[str]:
        """Describes each image independently.

        Args:
            row_keys: The N row keys of the archive.
            images: uint8, shape (N, H, W, 3), RGB.
            prompt: The prompt for every image.

        Returns:
            N texts of at most `MAX_CHARACTERS` characters.

        Raises:
            CaptionError: An image has no text, or the model cannot be reached.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """Everything that affects the texts except the prompt, as JSON types.

        A network in this process is listed under `weights`, as in the lineage of extractors.
        """
        ...
