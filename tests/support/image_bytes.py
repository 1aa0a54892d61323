"""Encoded images, valid and invalid, and the error kind of the decoders for them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from uniad_ray.archive.images import ImageLimits, decode_image, decode_mask, probe_image
from uniad_ray.errors import ImageError

SCENE = (np.add.outer(np.arange(48) * 3, np.arange(64) * 2)[..., None] % 256 * [1, 0.5, 0.25]).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, file_format: str, **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def raw_png(width: int, height: int, bits: int, colour_type: int, pixels: np.ndarray, *before: bytes) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + body + png_chunk(b"IEND", b"")


def raw_tiff(pixels: np.ndarray, tile: tuple[int, int] | None = None) -> bytes:
    """TIFF with one uncompressed big-endian grey strip, or with a tile that claims the given size."""
    height, width = pixels.shape
    content = pixels.tobytes()
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 277: 1}
    tags |= (
        {322: tile[0], 323: tile[1], 324: 8, 325: len(content)} if tile else {273: 8, 278: height, 279: len(content)}
    )
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    start = struct.pack(">4sI", b"MM\0*", 8 + len(content))
    return start + content + struct.pack(">H", len(tags)) + entries + bytes(4)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


WHOLE = {
    "png": encode(SCENE, "PNG"),
    "grey16.png": encode(SCENE[..., 0].astype(np.uint16) * 257, "PNG"),
    "jpg": encode(SCENE, "JPEG", quality=70),
    "progressive.jpg": encode(SCENE, "JPEG", quality=70, progressive=True),
    "tiff": encode(SCENE, "TIFF"),
    "deflate.tiff": encode(SCENE, "TIFF", compression="tiff_adobe_deflate"),
    "lzw.tiff": encode(SCENE, "TIFF", compression="tiff_lzw"),
    "jpeg.tiff": encode(SCENE, "TIFF", compression="jpeg"),
    "bmp": encode(SCENE, "BMP"),
    "webp": encode(SCENE, "WEBP"),
    "lossless.webp": encode(SCENE, "WEBP", lossless=True),
    "gif": encode(SCENE, "GIF"),
}


def kind_of(data: bytes, limits: ImageLimits | None = None) -> str:
    """Returns the error kind, and checks that all three functions agree."""
    limits = limits or ImageLimits()
    kinds = set()
    for call in (probe_image, decode_mask, lambda d, li: decode_image(d, (8, 8), li)):
        with pytest.raises(ImageError) as caught:
            call(data, limits)
        kinds.add(caught.value.kind)
    (kind,) = kinds
    return kind
