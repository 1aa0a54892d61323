"""Opens image files by their first bytes, and checks headers before any pixel is decoded.

Pillow's plugins are called directly instead of `Image.open`. That function warns and raises by a global pixel limit;
neither silencing the warning nor changing the limit is safe while other threads decode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Final

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ImageError

_PILLOW_PIXEL_LIMIT: Final = 178_956_970
_TIFF_TILE_WIDTH: Final = 322
_TIFF_TILE_LENGTH: Final = 323
_TIFF_BITS_PER_SAMPLE: Final = 258
_TIFF_PLANES: Final = 284
_SEPARATE_PLANES: Final = 2

_OPENERS: Final[dict[str, Callable[[BytesIO], Any]]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_BMP_HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_UNSUPPORTED_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"%PDF-", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (4, b"ftyp", "HEIF, AVIF or video"),
)


class ImageLimits(StrictModel):
    """Limits of one image, checked against its header before any pixel is decoded.

    Attributes:
        max_bytes: Maximum size of the encoded file, bytes.
        max_pixels: Maximum width times height; at most 178,956,970, the limit of Pillow itself. Decoding takes up to
            about 16 bytes of memory per pixel, with 16-bit colours 24.
    """

    max_bytes: int = Field(default=128 * 1024 * 1024, gt=0)
    max_pixels: int = Field(default=100_000_000, gt=0, le=_PILLOW_PIXEL_LIMIT)


DEFAULT_LIMITS: Final = ImageLimits()


def open_image(data: bytes, limits: ImageLimits) -> tuple[Any, str]:
    """Opens the file and checks its header against the limits."""
    if not data:
        raise ImageError("empty", "the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"the file has {len(data)} bytes; the limit is {limits.max_bytes}")
    format_name = _sniff(data)
    check_pixels(_canvas_allocated_on_open(data, format_name), limits)
    with pillow_errors(format_name):
        image = _OPENERS[format_name](BytesIO(data))
        check_pixels(image.size, limits)
        if format_name == "TIFF":
            tile = tuple(image.tag_v2.get(tag, 0) for tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH))
            check_pixels(tile, limits)
            _check_planes(image)
        if format_name == "PNG" and "exif" not in image.info:
            exif = _png_chunk(data, b"eXIf")
            if exif is not None:
                image.info["exif"] = b"Exif\0\0" + exif
    return image, format_name


def has_separate_planes(image: Any) -> bool:
    """Whether an opened image is a TIFF with a plane for each colour."""
    return bool(getattr(image, "tag_v2", {}).get(_TIFF_PLANES) == _SEPARATE_PLANES)


def _check_planes(image: Any) -> None:
    """Rejects uncompressed TIFF files with planes of 16 bits: Pillow reads these as if they had 8."""
    bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))
    if has_separate_planes(image) and len(bits) > 1 and 16 in bits and image.tile and image.tile[0].codec_name == "raw":
        raise ImageError("unsupported", "uncompressed 16-bit TIFF with separate planes; save the planes together")


def _sniff(data: bytes) -> str:
    for magic, format_name in _MAGIC:
        if data.startswith(magic):
            return format_name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone would match many text files.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    for offset, magic, known_as in _UNSUPPORTED_MAGIC:
        if data[offset : offset + len(magic)] == magic:
            raise ImageError("unsupported", f"{known_as} files are not supported; convert to {', '.join(_OPENERS)}")
    raise ImageError("not_an_image", f"the file is none of {', '.join(_OPENERS)}")


def _canvas_allocated_on_open(data: bytes, format_name: str) -> tuple[int, int]:
    """Width and height that the plugin allocates while it opens the header; (0, 0) if it allocates nothing."""
    if format_name == "GIF" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if format_name == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return 0, 0


def check_pixels(size: tuple[int, int], limits: ImageLimits) -> None:
    """Checks a width and a height.

    Raises:
        ImageError: `too_large`.
    """
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError("too_large", f"the image has {width} x {height} pixels; the limit is {limits.max_pixels}")


@contextmanager
def pillow_errors(format_name: str) -> Iterator[None]:
    """Turns any Pillow error into an ImageError; its plugins raise nearly every built-in exception."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageError("too_large", f"{format_name}: needs too much memory ({error})") from error
    except Exception as error:
        text = str(error) or type(error).__name__
        lowered = text.lower()
        # Pillow states the cause only in the message.
        if "too large" in lowered or "too much memory" in lowered:
            kind, meaning = "too_large", "a metadata chunk is too large"
        elif any(word in lowered for word in ("unsupported", "not supported", "unknown", "cannot handle")):
            kind, meaning = "unsupported", "not supported"
        else:
            kind, meaning = "truncated", "ends early or is corrupt"
        raise ImageError(kind, f"{format_name}: {meaning} ({text})") from error


def _png_chunk(data: bytes, name: bytes) -> bytes | None:
    """Content of the first PNG chunk with this name, or None; reads only chunk headers."""
    offset = 8
    while offset + 8 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        if data[offset + 4 : offset + 8] == name:
            return data[offset + 8 : offset + 8 + length]
        offset += length + 12
    return None
