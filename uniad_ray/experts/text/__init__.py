"""The text experts: text memory (TMUAD) and text similarity (UniAD)."""

from __future__ import annotations

from uniad_ray.experts.text.memory import TextMemory, TextMemoryConfig
from uniad_ray.experts.text.similarity import TextSimilarity, TextSimilarityConfig

__all__ = ["TextMemory", "TextMemoryConfig", "TextSimilarity", "TextSimilarityConfig"]
