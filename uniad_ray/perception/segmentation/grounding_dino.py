"""Grounding DINO: boxes of the objects that a list of classes names."""

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
    """The n objects found in an image, the surest first.

    Attributes:
        boxes: float32, shape (n, 4): left, top, right and bottom, in 0..1.
        scores: float32, shape (n,), in 0..1.
        classes: int64, shape (n,): positions in the list of classes.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor


class GroundingDino:
    """Looks for a fixed list of classes."""

    def __init__(self, network: Any, processor: Any, classes: Sequence[str], device: torch.device) -> None:
        """Reads the classes.

        Args:
            network: `GroundingDinoForObjectDetection`.
            processor: `GroundingDinoProcessor`.
            classes: At least one, none of them with a full stop.
            device: Where the network is.

        Raises:
            ConfigError: The network cannot read one of them, or so many.
        """
        self._network = network
        self._prepare = one_at_a_time(processor)
        self._device = device
        # Lower case and full stops are what the network was trained with.
        self._prompt = "".join(f"{name.strip().lower()}. " for name in classes).strip()
        tokens = processor.tokenizer(self._prompt)["input_ids"]
        if len(tokens) > network.config.max_text_len:
            raise ConfigError(
                f"the {len(classes)} classes are {len(tokens)} tokens long and Grounding DINO reads "
                f"{network.config.max_text_len}; name fewer classes, or shorter ones"
            )
        self._places = _places_between(tokens, processor.tokenizer)
        if len(self._places) != len(classes):
            raise ConfigError(
                f"Grounding DINO reads {len(self._places)} classes in {self._prompt!r}; write plain words"
            )

    def detect(self, image: np.ndarray, least_score: float, box_overlap: float, most: int) -> Detections:
        """Finds objects; each is of the class with the surest word.

        Args:
            image: uint8, shape (H, W, 3), RGB.
            least_score: Boxes with a score above this are kept.
            box_overlap: Of boxes with more than this intersection over union, the surest is kept.
            most: The most objects.
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
    """Network and processor of Grounding DINO, once a process; called within `loading`."""
    network = load_network("GroundingDinoForObjectDetection", weights, device)
    return network, load_processor("GroundingDinoProcessor", weights)


def _places_between(tokens: Sequence[int], tokenizer: Any) -> list[list[int]]:
    """Where the words between the full stops are, phrase by phrase."""
    stops = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.convert_tokens_to_ids(".")}
    runs = groupby(range(len(tokens)), key=lambda place: tokens[place] in stops)
    return [list(places) for is_stop, places in runs if not is_stop]
