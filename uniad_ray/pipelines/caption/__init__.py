"""Caption pipeline: a vision-language model describes the images of an archive once, on Ray Data."""

from __future__ import annotations

from uniad_ray.pipelines.caption.job import CaptionReport, caption

__all__ = ["CaptionReport", "caption"]
