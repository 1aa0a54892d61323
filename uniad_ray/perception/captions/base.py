"""What all captioners share: what they are asked, what they give, and how long an answer may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

MAX_CHARACTERS: Final = 4000
"""A caption is cut here, so that no model that repeats itself fills a sidecar."""


class Captioner(Protocol):
    """Writes one text an image: a vision-language model, or a table of what one wrote before."""

    def captions(self, row_keys: Sequence[str], images: np.ndarray, prompt: str) -> list[str]:
        """Describes images, each by itself.

        Args:
            row_keys: The N row keys of the archive.
            images: uint8, shape (N, H, W, 3), RGB.
            prompt: What the model is asked.

        Returns:
            N texts of at most `MAX_CHARACTERS`.

        Raises:
            CaptionError: There is no text for an image, or the model cannot be reached.
        """
        ...

    def lineage(self) -> dict[str, Any]:
        """All that changes the texts but the prompt, as JSON types.

        A network of this process is given as `weights`, as extractors do.
        """
        ...
