"""Decodes image files to arrays. Every unusual file is either decoded by a stated rule or rejected with a stable kind.

Pillow's plugins are called directly instead of `Image.open`. That function warns and raises by a global pixel limit;
neither silencing the warning nor changing the limit is safe while other threads decode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
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
_DRAFT_MARGIN: Final = 2
_TIFF_TILE_WIDTH: Final = 322
_TIFF_TILE_LENGTH: Final = 323

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
SIXTEEN_BIT_MODES: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})

_TRANSPOSE_BY_ORIENTATION: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNDO_ORIENTATION: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


class ImageLimits(StrictModel):
    """Limits of one image, checked against its header before any pixel is decoded.

    Attributes:
        max_bytes: Maximum size of the encoded file, bytes.
        max_pixels: Maximum width times height; at most 178,956,970, the limit of Pillow itself. Decoding takes up to
            about 8 bytes of memory per pixel.
    """

    max_bytes: int = Field(default=128 * 1024 * 1024, gt=0)
    max_pixels: int = Field(default=100_000_000, gt=0, le=_PILLOW_PIXEL_LIMIT)


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True)
class ImageInfo:
    """Contents of an image header.

    Attributes:
        width: Pixels, as displayed (after the EXIF orientation).
        height: Pixels, as displayed (after the EXIF orientation).
        format: `JPEG`, `PNG`, `TIFF`, `BMP`, `WEBP` or `GIF`.
        mode: Pillow's mode of the stored pixels, such as `RGB`, `L` or `I;16`.
        captured_at: EXIF DateTimeOriginal. It has a time zone if EXIF gives the offset; otherwise it is naive: the
            camera's own clock in an unknown zone. None if absent or malformed.
    """

    width: int
    height: int
    format: str
    mode: str
    captured_at: datetime | None


def probe_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageInfo:
    """Reads the header of an image without decoding any pixel.

    Args:
        data: The encoded file.
        limits: Limits of the image.

    Returns:
        Size, format, mode and capture time.

    Raises:
        ImageError: `empty`, `not_an_image`, `unsupported`, `too_large`, or `truncated` if the file ends early or is
            corrupt.
    """
    image, format_name = open_image(data, limits)
    height, width = displayed_size(image)
    return ImageInfo(width, height, format_name, image.mode, _captured_at(image))


def decode_image(data: bytes, size: tuple[int, int], limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes an image to 8-bit RGB as displayed, stretched to the given size.

    The resize is Pillow's bilinear filter with antialiasing: its support grows with the reduction. The aspect ratio is
    not kept. A JPEG at least four times as large as the result is decoded at 1/2, 1/4 or 1/8 scale in the DCT domain,
    never below twice the size of the result. Conversions:

    - 16-bit grey is divided by 257: 65535 becomes 255. Mode `I` (32-bit integer) likewise, if all values are in
      0..65535.
    - 16-bit RGB(A) PNG and TIFF keep only the upper byte: Pillow has no 16-bit colour.
    - 1-bit becomes 0 and 255. Grey is repeated. CMYK is converted without its ICC profile; no profile is applied.
    - Transparency (alpha, or a transparent colour in 8-bit files) is composited on white.
    - The EXIF orientation is applied. Of several frames, the first is used.

    Args:
        data: The encoded file.
        size: Height and width of the result, pixels.
        limits: Limits of the image.

    Returns:
        uint8, shape (height, width, 3), RGB.

    Raises:
        ImageError: As `probe_image`. Also `unsupported` for pixels without a known value range: 32-bit float, or
            integers out of range. A file that was cut off is `truncated` and never decoded in part. Pillow does not
            detect damage that leaves the outer structure of the file intact, such as wrong JPEG entropy data or a PNG
            stream that ends early; neither does this function.
        ValueError: `size` is not positive.
    """
    if min(size) < 1:
        raise ValueError(f"the size must be positive, not {size}")
    image, format_name = open_image(data, limits)
    if format_name == "JPEG":
        height, width = size if _orientation(image) < 5 else size[::-1]
        with pillow_errors(format_name):
            image.draft(None, (_DRAFT_MARGIN * width, _DRAFT_MARGIN * height))
    return stretch_image(image, size, limits)


def stretch_image(image: Any, size: tuple[int, int], limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Brings a Pillow image to 8-bit RGB of one size, with the conversions of `decode_image` and its errors."""
    if min(size) < 1:
        raise ValueError(f"the size must be positive, not {size}")
    _check_pixels(image.size, limits)
    with pillow_errors(image.format or "image"):
        image.load()
        orientation = _displayed_orientation(image)
        stored_size = size if orientation >= 5 else size[::-1]
        resized = _to_eight_bits(image).resize(stored_size, Image.Resampling.BILINEAR)
        if resized.mode == "RGBA":
            white = Image.new("RGBA", resized.size, (255, 255, 255, 255))
            resized = Image.alpha_composite(white, resized)
        if orientation > 1:
            resized = resized.transpose(_TRANSPOSE_BY_ORIENTATION[orientation])
        return np.array(resized.convert("RGB"))


def displayed_size(image: Any) -> tuple[int, int]:
    """Height and width of a Pillow image, after the EXIF orientation."""
    width, height = image.size
    return (width, height) if _displayed_orientation(image) >= 5 else (height, width)


def decode_batch(
    encoded: Sequence[bytes], size: tuple[int, int], limits: ImageLimits
) -> tuple[np.ndarray, dict[int, ImageError]]:
    """Decodes image files to one size, and collects the errors.

    Args:
        encoded: N image files.
        size: Height and width of the results, pixels.
        limits: Limits of each file.

    Returns:
        The M <= N decoded images in order, uint8, shape (M, height, width, 3); and the errors by index.
    """
    images: list[np.ndarray] = []
    errors: dict[int, ImageError] = {}
    for index, data in enumerate(encoded):
        try:
            images.append(decode_image(data, size, limits))
        except ImageError as error:
            errors[index] = error
    stacked = np.stack(images) if images else np.zeros((0, *size, 3), dtype=np.uint8)
    return stacked, errors


def decode_mask(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decodes a ground-truth mask to its raw grey values, in the stored orientation and size.

    1-bit becomes 0 and 255. A palette of greys gives its greys. A palette with colours gives the palette indices, the
    usual encoding of label maps. RGB is accepted if all three channels are equal, alpha if all pixels are opaque.

    Args:
        data: The encoded file.
        limits: Limits of the mask.

    Returns:
        uint8, or uint16 for 16-bit files, shape (H, W).

    Raises:
        ImageError: As `probe_image`; `unsupported` for a mask with colours, transparency or float values.
    """
    image, format_name = open_image(data, limits)
    orientation = _orientation(image) if format_name == "TIFF" else 1
    with pillow_errors(format_name):
        image.load()
        values = _mask_values(image)
        if orientation > 1:
            undo = _TRANSPOSE_BY_ORIENTATION[_UNDO_ORIENTATION[orientation]]
            values = np.array(Image.fromarray(values).transpose(undo))
        return values


def open_image(data: bytes, limits: ImageLimits) -> tuple[Any, str]:
    """Opens the file and checks its header against the limits."""
    if not data:
        raise ImageError("empty", "the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"the file has {len(data)} bytes; the limit is {limits.max_bytes}")
    format_name = _sniff(data)
    _check_pixels(_canvas_allocated_on_open(data, format_name), limits)
    with pillow_errors(format_name):
        image = _OPENERS[format_name](BytesIO(data))
        _check_pixels(image.size, limits)
        if format_name == "TIFF":
            tile = tuple(image.tag_v2.get(tag, 0) for tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH))
            _check_pixels(tile, limits)
        if format_name == "PNG" and "exif" not in image.info:
            exif = _png_chunk(data, b"eXIf")
            if exif is not None:
                image.info["exif"] = b"Exif\0\0" + exif
    return image, format_name


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


def _check_pixels(size: tuple[int, int], limits: ImageLimits) -> None:
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


def _to_eight_bits(image: Any) -> Any:
    """Converts a loaded image to mode L, RGB or RGBA."""
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        values = _sixteen_bit_values(image)
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ImageError("unsupported", "float pixels have no known value range; convert to 8 or 16 bits")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _sixteen_bit_values(image: Any) -> np.ndarray:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(
            "unsupported", "integer pixels outside 0..65535 have no known value range; convert to 8 or 16 bits"
        )
    return values.astype(np.uint16)


def _mask_values(image: Any) -> np.ndarray:
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        return _sixteen_bit_values(image)
    if image.mode == "P":
        indices = np.array(image)
        palette = np.zeros((256, 3), dtype=np.uint8)
        colours = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        is_grey = bool((palette == palette[:, :1]).all())
        return palette[indices, 0] if is_grey else indices
    if image.mode in ("LA", "RGB", "RGBA", "RGBX"):
        channels = np.array(image)
        if image.mode in ("LA", "RGBA") and (channels[..., -1] < 255).any():
            raise ImageError("unsupported", "the mask is partly transparent; save it as opaque grey")
        colours = channels[..., :1] if image.mode == "LA" else channels[..., :3]
        if (colours != colours[..., :1]).any():
            raise ImageError("unsupported", "the mask has colours; save it as grey")
        return np.ascontiguousarray(colours[..., 0])
    raise ImageError("unsupported", f"a mask cannot have the pixel mode {image.mode}; save it as grey")


def _exif(image: Any) -> Any | None:
    """The EXIF tags of an opened image; None if they are corrupt: the image itself may still be valid."""
    try:
        # PngImageFile.getexif would decode the pixels to look for late chunks.
        return Image.Image.getexif(image)
    except Exception:
        return None


def _displayed_orientation(image: Any) -> int:
    # Pillow turns a TIFF itself while it loads.
    return 1 if image.format == "TIFF" else _orientation(image)


def _orientation(image: Any) -> int:
    exif = _exif(image)
    if exif is None:
        return 1
    try:
        return next(valid for valid in _TRANSPOSE_BY_ORIENTATION if valid == exif.get(ExifTags.Base.Orientation))
    except Exception:
        return 1


def _captured_at(image: Any) -> datetime | None:
    exif = _exif(image)
    if exif is None:
        return None
    try:
        tags = exif.get_ifd(ExifTags.IFD.Exif)
        moment = str(tags[ExifTags.Base.DateTimeOriginal]).strip("\0 ")
        offset = str(tags.get(ExifTags.Base.OffsetTimeOriginal, "")).strip("\0 ")
    except Exception:
        return None
    for text, pattern in ((moment + offset, "%Y:%m:%d %H:%M:%S%z"), (moment, "%Y:%m:%d %H:%M:%S")):
        try:
            return datetime.strptime(text, pattern)
        except ValueError:
            continue
    return None


def _png_chunk(data: bytes, name: bytes) -> bytes | None:
    """Content of the first PNG chunk with this name, or None; reads only chunk headers."""
    offset = 8
    while offset + 8 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        if data[offset + 4 : offset + 8] == name:
            return data[offset + 8 : offset + 8 + length]
        offset += length + 12
    return None
