"""Writes a synthetic category to any store."""

from __future__ import annotations

from uniad_ray.archive.scenes import SceneConfig, iterate_files
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ArchiveError
from uniad_ray.progress import Progress


class ScenesReport(StrictModel):
    """What was drawn.

    Attributes:
        destination: Root of the tree; the category's folder lies below it.
        category: Name of the category.
        files: Images, masks and the defect list.
    """

    destination: str
    category: str
    files: int


def write_scenes(destination: str, config: SceneConfig) -> ScenesReport:
    """Draws a category of trays in the layout of MVTec LOCO.

    Args:
        destination: Folder or S3 prefix.
        config: Seed, size and counts; equal configurations give equal bytes.

    Raises:
        ArchiveError: The category's folder holds something already.
        StoreError: The destination cannot be written.
    """
    root = Location.parse(destination)
    if (root / config.category).has_children():
        raise ArchiveError(f"{root / config.category}: not empty; choose another destination or --category")
    images = config.train + config.validation + config.test_good + config.logical + config.structural
    count = 0
    with Progress("drawing", images) as progress:
        for file in iterate_files(config):
            (root / file.path).write_bytes(file.data)
            count += 1
            if "/ground_truth/" not in file.path and file.path.endswith((".png", ".jpg")):
                progress.advance(1)
    return ScenesReport(destination=root.uri, category=config.category, files=count)
