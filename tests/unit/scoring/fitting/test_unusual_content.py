"""Fit and score images with no object, one filling object, or hundreds of objects (embedded profile)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.scene_images import GivenNormalImages, archive_rows, scene_images

from uniad_ray.archive.images import ImageLimits, decode_image
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import FittedCategory, fit_category

SIZE = 128


def empty() -> np.ndarray:
    """Grained background without objects."""
    noise = np.random.default_rng(1).normal(90, 3, (SIZE, SIZE, 3))
    return np.asarray(noise.clip(0, 255), dtype=np.uint8)


def filled() -> np.ndarray:
    """One object that fills the image."""
    part = scene_images(1, SIZE)[0][SIZE // 2 - 8 : SIZE // 2 + 8, SIZE // 2 - 8 : SIZE // 2 + 8]
    return np.asarray(Image.fromarray(part).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def crowded() -> np.ndarray:
    """500 objects on a plain background."""
    image = empty()
    for number in range(500):
        row, column = divmod(number, 25)
        image[6 * row + 2 : 6 * row + 6, 5 * column + 1 : 5 * column + 4] = (200, 60, 50)
    return image


ODD = {"empty": empty(), "filled": filled(), "crowded": crowded()}


def config() -> FitConfig:
    return load_config(
        "embedded",
        [
            "expert_set=fused-teacher",
            f"image_size=[{SIZE}, {SIZE}]",
            "map_size=32",
            "experts.structural_teacher.config.epochs=1",
            "experts.patch_fine.config.memory_size=500",
            "extractors.vit.config.input_size=112",
            "fusions.fused-teacher.selection.images=2",
            "calibration={holdout_from: 4, holdout: 0.5}",
        ],
    )


def stored(fitted: FittedCategory, root: Path) -> Bundle:
    store = BundleStore(str(root))
    lineage = {"extractors": fitted.extractors}
    return store.load("part", store.write("part", fitted.config, fitted.calibration, lineage, fitted.files).version)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return stored(fit_category(GivenNormalImages(scene_images(16, SIZE)), config()), tmp_path_factory.mktemp("bundle"))


def test_unusual_images_are_scored_as_anomalous(bundle: Bundle) -> None:
    scorer = bundle.scorer(only=bundle.manifest.config.chosen_experts)
    for name, image in ODD.items():
        (verdict,) = scorer.score(["a" * 32], image[None])
        assert np.isfinite(list(verdict.raw.values())).all(), name  # type: ignore[union-attr]
        assert verdict.is_anomalous, name  # type: ignore[union-attr]
        assert verdict.reasons, name  # type: ignore[union-attr]


def test_unusual_normal_images_do_not_break_the_fit(tmp_path: Path) -> None:
    images = [*scene_images(9, SIZE), *ODD.values()]
    found = stored(fit_category(GivenNormalImages(images), config()), tmp_path)
    found.check_reference(found.scorer())


def test_category_without_objects_uses_patch_memory(tmp_path: Path) -> None:
    ground = [np.roll(empty(), shift, axis=(0, 1)) for shift in range(8)]
    found = stored(fit_category(GivenNormalImages(ground), config()), tmp_path)
    (verdict,) = found.scorer().score(["a" * 32], ODD["crowded"][None])
    assert verdict.is_anomalous  # type: ignore[union-attr]


def test_image_of_other_size_is_resized(bundle: Bundle) -> None:
    scorer = bundle.scorer()
    large = scene_images(1, 2 * SIZE, seed=21)
    (row,) = archive_rows(large)
    (verdict,) = scorer.score_encoded(["a" * 32], [row.image])
    limits = ImageLimits()
    (expected,) = scorer.score(["a" * 32], decode_image(row.image, (SIZE, SIZE), limits)[None])
    assert verdict.score == expected.score  # type: ignore[union-attr]
