"""How a CLIP is tuned on crops of objects (TMUAD, section IV-B)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from uniad_ray.config.base import StrictModel


class ClipTuningConfig(StrictModel):
    """How `uniad-ray tune-clip` tunes the CLIP of a namer, by AdamW; names do not depend on it.

    TMUAD names the images of a category and the labels, those of Grounding DINO; what is trained, and how, it leaves
    open.

    Attributes:
        labels: Field with named segments, such as `grounded_sam/segments`: these are cropped, and their names are the
            labels. Without it the namer's segments are, and CLIP labels them itself before it is tuned, so that it can
            become surer of what it sees, but not learn what it does not know.
        images: The most normal images of a category that are segmented, drawn by hash.
        least_share: Of what CLIP labels itself, a crop is taken if its class has at least this probability among all.
        least_confidence: Of segments with names, one is taken if its segmenter is at least this sure of it.
        most_crops: The most crops of one class in one category, drawn by hash, so that no class drowns the others.
        blocks: Last blocks of the image tower that are trained, beside its last norm and its projection. Everything
            else stays, and so do the texts.
        epochs: Passes over the crops; the epoch with the best held-out accuracy is kept, of equals the one with the
            lowest held-out loss, and the CLIP as it was is one of them.
        batch_size: Crops in a step, of all workers together.
        learning_rate: Highest learning rate; it falls to 0 along half a cosine.
        warm_up: Steps in which the rate grows linearly to its highest.
        weight_decay: Of AdamW.
        held_out: Share of the images of which no crop is trained on.
        precision: Of the computation; bfloat16 on CUDA only. Parameters are float32 always.
    """

    labels: str | None = None
    images: PositiveInt = 200
    least_share: float = Field(default=0.5, ge=0.0, le=1.0)
    least_confidence: float = Field(default=0.0, ge=0.0, le=1.0)
    most_crops: PositiveInt = 500
    blocks: NonNegativeInt = 2
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-5
    warm_up: NonNegativeInt = 10
    weight_decay: NonNegativeFloat = 0.01
    held_out: float = Field(default=0.2, gt=0.0, lt=0.9)
    precision: Literal["float32", "bfloat16"] = "float32"
