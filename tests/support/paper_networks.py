"""The networks of the profile `paper`: the real architectures, narrow or shallow, with random parameters.

They are fakes: their features mean nothing, and nothing that is computed from them says anything about quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from support.tiny_networks import save_clip, save_grounding_dino, save_sam, save_sentence_t5

from uniad_ray.perception.features import encoders, network
from uniad_ray.perception.timm_library import timm

_NARROW: Final = {"embed_dim": 16, "num_heads": 2}
# All blocks are there, so the profile's names of blocks hold.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "vit_large_patch14_clip_quickgelu_224": _NARROW,
    "vit_large_patch14_dinov2": _NARROW,
    "vit_base_patch16_clip_quickgelu_224": _NARROW,
    "vit_base_patch14_dinov2": _NARROW,
    "vit_small_patch8_224": _NARROW,
    "wide_resnet50_2": {"layers": (1, 1, 1, 1), "base_width": 16, "channels": (8, 16, 32, 64)},
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (8, 16, 32, 64)},
}
_FOLDERS: Final[dict[str, Callable[[Path], None]]] = {
    "sam": save_sam,
    "detector": save_grounding_dino,
    "clip": save_clip,
    "t5": save_sentence_t5,
}


@contextmanager
def tiny_architectures() -> Iterator[None]:
    """Builds timm's networks of the profile with few parameters within a `with` block."""
    create = timm.create_model

    def tiny(architecture: str, **options: Any) -> Any:
        return create(architecture, **options, **_OPTIONS[architecture])

    caches = (network.network_outline, encoders._load_network)
    for cache in caches:
        cache.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", tiny)
        yield
    for cache in caches:
        cache.cache_clear()


def save_folders(root: Path) -> dict[str, str]:
    """Saves the networks of transformers, and returns their URIs by name."""
    for name, save in _FOLDERS.items():
        (root / name).mkdir()
        save(root / name)
    return {name: f"file:{root / name}" for name in _FOLDERS}


def tiny_profile(folders: dict[str, str], server: str) -> list[str]:
    """Overrides of the profile `paper` for these networks, small images and a quick fit.

    Args:
        folders: URIs of `save_folders`.
        server: URL of a chat server.
    """
    weights = {
        **dict.fromkeys(("pyramid", "dino", "clip", "dinov2"), "random:1"),
        **dict.fromkeys(("sam_encoder", "sam"), folders["sam"]),
        **dict.fromkeys(
            ("object_features", "named_features", "named_objects", "text_embedding", "caption_embedding"),
            folders["clip"],
        ),
        "grounded_sam": folders["detector"],
        "caption_t5": folders["t5"],
    }
    captioner = f"{{kind: server, url: '{server}', model: fake}}"
    discriminator = {"channels": 32, "hidden": 8, "batch_vectors": 64, "max_vectors": 500, "epochs": 2}
    return [
        *(f"extractors.{name}.config.weights={{uri: '{uri}'}}" for name, uri in weights.items()),
        f"extractors.grounded_sam.config.sam_weights={{uri: '{folders['sam']}'}}",
        f"extractors.caption.config.captioner={captioner}",
        f"extractors.named_description.config.captioner={captioner}",
        "classes=[red pin, bolt]",
        # Random networks give low confidence and stability.
        "extractors.sam.config.predicted_iou=0.01",
        "extractors.sam.config.stability=0.0",
        "extractors.sam.config.box_overlap=1.0",
        "extractors.sam.config.points_per_side=2",
        "extractors.grounded_sam.config.least_score=0.0",
        "extractors.clip.config.input_size=56",
        "extractors.dinov2.config.input_size=56",
        "extractors.dino.config.input_size=64",
        "extractors.teacher_components.config.crf.grid=8",
        "extractors.student_components.config.crf.grid=8",
        "extractors.student.config.training.iterations=2",
        *(
            f"experts.{name}.config.{option}={value}"
            for name in ("structural_teacher", "structural_student")
            for option, value in discriminator.items()
        ),
        "image_size=[64, 64]",
        "map_size=16",
        "batch_size=4",
        "calibration.folds=2",
        "calibration.false_positive_rate=0.1",
    ]
