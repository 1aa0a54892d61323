"""Small image trees for tests: flat colours with a little noise, cheap to draw and score."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image


def png(seed: int, size: int = 48, *, width: int | None = None, spot: bool = False, mode: str = "RGB") -> bytes:
    """A noisy grey image, square without a width, with a bright rectangle at its centre if `spot`."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(120, 8, (size, width or size, 3)).clip(0, 255).astype(np.uint8)
    if spot:
        pixels[_centre(size, width or size)] = (250, 30, 30)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def mask_png(size: int = 48, value: int = 255, *, width: int | None = None) -> bytes:
    """The mask of the bright rectangle."""
    mask = np.zeros((size, width or size), dtype=np.uint8)
    mask[_centre(*mask.shape)] = value
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _centre(height: int, width: int) -> tuple[slice, slice]:
    return slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3)


def write(path: Path, data: bytes) -> None:
    """Writes a file and creates its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def mvtec_tree(
    root: Path,
    *,
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    seed: int = 0,
    size: int = 48,
    width: int | None = None,
) -> Path:
    """One category in MVTec AD's layout, defect kind `spot`; its images are square without a width."""
    for index in range(train):
        write(root / f"train/good/{index:03d}.png", png(seed * 1000 + index, size, width=width))
    for index in range(good):
        write(root / f"test/good/{index:03d}.png", png(seed * 1000 + 100 + index, size, width=width))
    for index in range(bad):
        write(root / f"test/spot/{index:03d}.png", png(seed * 1000 + 200 + index, size, width=width, spot=True))
        write(root / f"ground_truth/spot/{index:03d}_mask.png", mask_png(size, width=width))
    return root


def loco_tree(root: Path) -> Path:
    """One category in MVTec LOCO's layout: several masks per image; grey values identify the defects."""
    for index in range(4):
        write(root / f"train/good/{index:03d}.png", png(index))
        write(root / f"validation/good/{index:03d}.png", png(50 + index))
        write(root / f"test/good/{index:03d}.png", png(100 + index))
    write(root / "test/logical_anomalies/000.png", png(200, spot=True))
    write(root / "ground_truth/logical_anomalies/000/000.png", mask_png(value=254))
    write(root / "ground_truth/logical_anomalies/000/001.png", mask_png(value=253))
    write(root / "test/structural_anomalies/000.png", png(201, spot=True))
    write(root / "ground_truth/structural_anomalies/000/000.png", mask_png(value=250))
    defects = [
        {"defect_name": "missing", "pixel_value": 254, "saturation_threshold": 100, "relative_saturation": False},
        {"defect_name": "extra", "pixel_value": 253, "saturation_threshold": 100, "relative_saturation": False},
        {"defect_name": "scratch", "pixel_value": 250, "saturation_threshold": 1.0, "relative_saturation": True},
    ]
    write(root / "defects_config.json", json.dumps(defects).encode())
    return root
