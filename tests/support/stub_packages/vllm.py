"""Stub of vLLM, which the tests do not install, for processes with this folder on their path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

SamplingParams = SimpleNamespace


class LLM:
    """Responds with the mean of the image and the size of the batch."""

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
