"""The part of the images of a category that counts, as stored in a configuration."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from uniad_ray.config.base import StrictModel

MOST_PIXELS: Final = 178_956_970
"""Maximum width times height: no image that is decoded is larger."""


class RegionMask(StrictModel):
    """A mask of the pixels that count; `fit --region` reads it from a file.

    Attributes:
        width: Width of the images, pixels.
        height: Height of the images, pixels.
        png: 1-bit PNG in base64, white where pixels count.
    """

    width: int = Field(ge=1, le=65_535)
    height: int = Field(ge=1, le=65_535)
    png: str

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> Self:
        """Encodes a mask.

        Args:
            mask: bool, shape (H, W), true where pixels count.
        """
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, "PNG", optimize=True)
        return cls(width=mask.shape[1], height=mask.shape[0], png=base64.b64encode(buffer.getvalue()).decode())

    @property
    def pixels(self) -> npt.NDArray[np.bool_]:
        """The mask: bool, shape (height, width)."""
        from PIL.PngImagePlugin import PngImageFile

        # Unlike `Image.open`, it does not warn of large images.
        with PngImageFile(io.BytesIO(base64.b64decode(self.png, validate=True))) as picture:
            if picture.size != (self.width, self.height):
                raise ValueError(f"the mask has {picture.size[0]} x {picture.size[1]} pixels")
            return np.asarray(picture.convert("1"), dtype=bool)

    @model_validator(mode="after")
    def _is_a_mask(self) -> Self:
        if self.width * self.height > MOST_PIXELS:
            raise ValueError(f"the mask has {self.width} x {self.height} pixels; at most {MOST_PIXELS} are possible")
        try:
            is_empty = not self.pixels.any()
        except (OSError, SyntaxError, binascii.Error) as error:
            raise ValueError(f"png is no mask: {error}") from error
        if is_empty:
            raise ValueError("no pixel of the mask is white, so nothing would count")
        return self
