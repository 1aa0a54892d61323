"""Options for tuning CLIP on crops of objects (TMUAD, section IV-B)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from uniad_ray.config.base import StrictModel


class ClipTuningConfig(StrictModel):
    """Options of `uniad-ray tune-clip`, which tunes the CLIP of a namer with AdamW; they do not affect the names.

    TMUAD specifies the images of a category and the labels of Grounding DINO. It leaves open which parameters are
    trained, and how.

    Attributes:
        labels: Field with named segments, such as `grounded_sam/segments`; they are cropped, and their names are the
            labels. If null, the namer's segments are cropped and the untuned CLIP labels them. Tuning can then sharpen
            CLIP's predictions, but not correct them.
        images: Maximum number of normal images per category to segment, drawn by hash.
        least_share: Minimum probability of the class of a crop labelled by CLIP; other crops are dropped.
        least_confidence: Minimum confidence of a named segment; others are dropped.
        most_crops: Maximum number of crops per class and category, drawn by hash; keeps the classes balanced.
        blocks: Number of last blocks of the image tower to train, besides its last norm and its projection. All other
            parameters are frozen, including the text tower.
        epochs: Passes over the crops. The epoch with the best held-out accuracy is kept, and among equals the one with
            the lowest held-out loss. The untuned CLIP is a candidate too.
        batch_size: Crops per step, over all workers.
        learning_rate: Peak learning rate; it decays to 0 along half a cosine.
        warm_up: Steps of linear warm-up to the peak rate.
        weight_decay: Weight decay of AdamW.
        held_out: Fraction of the images whose crops are held out from training.
        precision: Precision of the computation; bfloat16 on CUDA only. Parameters are always float32.
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
