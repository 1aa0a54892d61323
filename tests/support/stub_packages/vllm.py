"""Stands for vLLM, which is not among the tests' packages, in processes that have this folder on their path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

SamplingParams = SimpleNamespace


class LLM:
    """Answers with the mean of the image and how many were asked about together."""

    def __init__(self, **options: Any) -> None:
        self.model = options["model"]

    def chat(self, conversations: list[Any], options: Any, *, use_tqdm: bool) -> list[Any]:  # noqa: ARG002
        texts = []
        for conversation in conversations:
            picture, prompt = conversation[0]["content"]
            if prompt["text"] == "fail":
                raise RuntimeError("out of memory")
            texts.append(f"{prompt['text']} {np.asarray(picture['image_pil']).mean():.0f} of {len(conversations)}")
        return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in texts]
