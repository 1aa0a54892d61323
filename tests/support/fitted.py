"""A folder with a small fitted bundle and images to score, made without Ray."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from support.profiles import small_config
from support.scene_images import GivenNormalImages, scene_images

from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category

CATEGORY = "trays"


def write_fitted(folder: Path) -> None:
    """Writes `bundles/` with one published bundle, `good.png`, `damaged.png`, and copies of both in `photos/`."""
    config = small_config("calibration.folds=2", "experts.patch.config.memory_size=100")
    fitted = fit_category(GivenNormalImages(scene_images(12, 64)), config)
    store = BundleStore(str(folder / "bundles"))
    lineage = {"archive": {"uri": "given images", "digest": "0" * 64}, "extractors": fitted.extractors}
    manifest = store.write(CATEGORY, fitted.config, fitted.calibration, lineage, fitted.files)
    store.publish(CATEGORY, manifest.version)
    (folder / "photos").mkdir()
    good = scene_images(13, 96)[12]
    damaged = good.copy()
    damaged[20:60, 30:70] = (255, 0, 255)
    for name, image in (("good.png", good), ("damaged.png", damaged)):
        Image.fromarray(image).save(folder / name)
        Image.fromarray(image).save(folder / "photos" / name)
