"""Lines and masks as Lookout for Vision and SageMaker Ground Truth write them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

COLORS = {"BACKGROUND": "#ffffff", "scratch": "#2ca02c", "dent": "#1f77b4"}


def lookout_line(image: str, label: str | None = "normal", mask: str | None = None, **further: Any) -> str:
    """A line of a manifest; `further` keys are metadata."""
    line: dict[str, Any] = {"source-ref": image, **further}
    if label is not None:
        line["anomaly-label"] = 11
        line["anomaly-label-metadata"] = {
            "class-name": label,
            "confidence": 1,
            "creation-date": "2021-10-12T14:16:45.668",
            "human-annotated": "yes",
            "job-name": "labeling-job/classification-job",
            "type": "groundtruth/image-classification",
        }
    if mask is not None:
        line["anomaly-mask-ref"] = mask
        line["anomaly-mask-ref-metadata"] = {
            "internal-color-map": {
                str(index): {"class-name": name, "hex-color": color, "confidence": 0.0}
                for index, (name, color) in enumerate(COLORS.items())
            },
            "creation-date": "2021-11-23T20:31:57.758889",
            "human-annotated": "yes",
            "job-name": "labeling-job/segmentation-job",
            "type": "groundtruth/semantic-segmentation",
        }
    return json.dumps(line)


def color_mask(size: int = 32, **boxes: tuple[int, int, int, int]) -> bytes:
    """A PNG whose boxes (top, left, bottom, right) have the colours of their classes, on the background."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    for name, (top, left, bottom, right) in boxes.items():
        pixels[top:bottom, left:right] = [int(COLORS[name][at : at + 2], 16) for at in (1, 3, 5)]
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
