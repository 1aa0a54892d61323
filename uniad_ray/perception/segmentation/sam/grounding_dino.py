"""Grounding DINO: detection of objects from a list of class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from uniad_ray.errors import ConfigError
from uniad_ray.perception.weights.pretrained_networks import load_network, load_processor, one_at_a_time
from uniad_ray.perception.weights.sources import ResolvedWeights


@dataclass(frozen=True)
class Detections:
    """The n objects detected in an image, by descending score.

    Attributes:
        boxes: float32, shape (n, 4): left, top, right and bottom, in 0..1.
        scores: float32, shape (n,), in 0..1.
        classes: int64, shape (n,): indices into the list of classes.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor


class GroundingDino:
    """A detector for a fixed list of classes."""

    def __init__(self, network: Any, processor: Any, classes: Sequence[str], device: torch.device) -> None:
        """Tokenises the classes.

        Args:
            network: `GroundingDinoForObjectDetection`.
            processor: `GroundingDinoProcessor`.
            classes: At least one; none contains a full stop.
            device: Device of the network.

        Raises:
            ConfigError: A class gives no tokens, or the classes exceed the network's maximum number of tokens.
        """
        self._network = network
        self._prepare = one_at_a_time(processor)
        self._device = device
        # The network was trained on lower-case phrases that end in full stops.
        self._prompt = "".join(f"{name.strip().lower()}. " for name in classes).strip()
        tokens = processor.tokenizer(self._prompt)["input_ids"]
        if len(tokens) > network.config.max_text_len:
            raise ConfigError(
                f"the {len(classes)} classes have {len(tokens)} tokens, but Grounding DINO reads at most "
                f"{network.config.max_text_len}; use fewer or shorter class names"
            )
        self._places = _places_between(tokens, processor.tokenizer)
        if len(self._places) != len(classes):
            raise ConfigError(
                f"Grounding DINO reads only {len(self._places)} of {len(classes)} classes in {self._prompt!r}; use "
                "plain words as class names"
            )

    def detect(self, image: np.ndarray, least_score: float, box_overlap: float, most: int) -> Detections:
        """Detects objects; an object gets the class of its highest-scoring word.

        Args:
            image: uint8, shape (H, W, 3), RGB.
            least_score: Minimum score of a box (exclusive).
            box_overlap: Of boxes with a larger intersection over union than this, only the one with the highest score
                is kept.
            most: Maximum number of objects.
        """
        inputs = self._prepare(images=image, text=self._prompt, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            found = self._network(**inputs)
        by_token = found.logits[0].sigmoid().cpu()
        by_class = torch.stack([by_token[:, places].amax(dim=1) for places in self._places], dim=1)
        scores, classes = by_class.max(dim=1)
        centres, sizes = found.pred_boxes[0].cpu().split(2, dim=1)
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1).clamp(0.0, 1.0)
        sure = scores > least_score
        boxes, scores, classes = boxes[sure], scores[sure], classes[sure]
        kept = nms(boxes, scores, box_overlap)[:most]
        return Detections(boxes[kept], scores[kept], classes[kept])


@lru_cache(maxsize=2)
def load_grounding_dino(weights: ResolvedWeights, device: torch.device) -> tuple[Any, Any]:
    """Loads network and processor of Grounding DINO, once per process; call within `loading`."""
    network = load_network("GroundingDinoForObjectDetection", weights, device)
    return network, load_processor("GroundingDinoProcessor", weights)


def _places_between(tokens: Sequence[int], tokenizer: Any) -> list[list[int]]:
    """The token positions of each phrase between the full stops."""
    stops = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.convert_tokens_to_ids(".")}
    runs = groupby(range(len(tokens)), key=lambda place: tokens[place] in stops)
    return [list(places) for is_stop, places in runs if not is_stop]
