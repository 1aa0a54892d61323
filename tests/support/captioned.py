"""A fitted category with an expert on captions; a fake chat server describes the brightness of each image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from support.chat_server import Asked
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.config.model import FitConfig
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category


def brightness_text(asked: Asked) -> str:
    """Response of the fake model: the brightness of an image and its tilt, which varies the normal texts."""
    lean = ("left", "right", "ahead")[int(asked.image[0, 0, 0]) % 3]
    return f"There is a part. Its brightness is {int(asked.image.mean()) // 40} of 6. It leans {lean}."


def caption_options(captioner: Mapping[str, Any]) -> list[str]:
    """Options of a profile with the patch memory, and text similarity on the captions of a captioner."""
    describer = {
        "class": "uniad_ray.perception.captions.captioners:CaptionDescriber",
        "config": {"captioner": dict(captioner)},
    }
    return [
        f"extractors.caption={json.dumps(describer)}",
        "extractors.text_embedding.config.text=caption/text",
        "experts.text.config={neighbour_space: text, text: caption/text}",
        "expert_sets.captioned=[patch, text]",
        "expert_set=captioned",
    ]


def captioned_config(url: str, *overrides: str) -> FitConfig:
    """Configuration with the patch memory, and text similarity on captions of a server."""
    return small_config(*caption_options({"kind": "server", "url": url, "model": "fake"}), *overrides)


def write_captioned(root: Path, url: str, *overrides: str, category: str = "part") -> BundleStore:
    """Fits a category and publishes its bundle under a root."""
    fitted = fit_category(DrawnNormalImages(12), captioned_config(url, *overrides))
    store = BundleStore(str(root))
    lineage = {"extractors": fitted.extractors}
    manifest = store.write(category, fitted.config, fitted.calibration, lineage, fitted.files)
    store.publish(category, manifest.version)
    return store


def images(count: int = 3) -> np.ndarray:
    """Normal images, the last one much brighter; uint8, shape (count, 64, 64, 3)."""
    found = np.stack([DrawnNormalImages(count).image(index) for index in range(count)])
    found[-1] = np.clip(found[-1].astype(int) + 90, 0, 255)
    return found
