"""Writes a synthetic category to any store."""

from __future__ import annotations

from uniad_ray.archive.scenes import SceneConfig, iterate_files
from uniad_ray.archive.scenes.products.dataset import ProductConfig, iterate_product_files
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError
from uniad_ray.progress import Progress


class ScenesReport(StrictModel):
    """What was drawn.

    Attributes:
        destination: Root of the tree; the category's folder lies below it.
        category: Name of the category.
        files: Images, masks and what describes them.
    """

    destination: str
    category: str
    files: int


def write_scenes(destination: str, config: SceneConfig | ProductConfig) -> ScenesReport:
    """Draws a category of trays or of another product in the layout of MVTec LOCO.

    Args:
        destination: Folder or S3 prefix.
        config: Seed and counts; equal configurations give equal bytes.

    Raises:
        ArchiveError: The category's folder holds something already.
        StoreError: The destination cannot be written.
    """
    root = Location.parse(destination)
    if (root / config.category).has_children():
        raise ArchiveError(f"{root / config.category}: not empty; choose another destination or --category")
    images = config.train + config.validation + config.test_good + config.logical + config.structural
    count = 0
    files = iterate_product_files(config) if isinstance(config, ProductConfig) else iterate_files(config)
    with Progress("drawing", images) as progress:
        for file in files:
            (root / file.path).write_bytes(file.data)
            count += 1
            if file.is_image:
                progress.advance(1)
    return ScenesReport(destination=root.uri, category=config.category, files=count)
