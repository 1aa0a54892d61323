"""Files of a product, in the folder layout of MVTec LOCO AD; its rules and its true parts lie beside the images.

CATEGORY/defects_config.json
CATEGORY/{train,validation,test}/GROUP/000.png
CATEGORY/ground_truth/GROUP/000/000.png     where a defect may be reported; its value names the defect
CATEGORY/parts/SPLIT-GROUP/000.png          uint16: 0 is ground, 1 to n the visible pixels of each part
CATEGORY/product.json                       what the product is, its rules, and the parts of each image
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from uniad_ray.archive.scenes.files import (
    Group,
    ImageFormat,
    SceneFile,
    Split,
    encode_image,
    encode_json,
    suffix_of,
)
from uniad_ray.archive.scenes.products.model import Break, Flaw
from uniad_ray.archive.scenes.products.product import Product, ProductImage, draw_image, draw_product
from uniad_ray.config.base import StrictModel

_DEFECTS: Final[tuple[Break | Flaw, ...]] = (*Break, *Flaw)
_HIGHEST_PIXEL_VALUE: Final = 255
_FEWEST_PIXELS: Final = 12

FlawShare = Annotated[float, Field(gt=0, le=0.02)]


class ProductConfig(StrictModel):
    """Options of a data set of a product.

    Attributes:
        product: Seed of the product; it also draws all images.
        category: Name of the category and its folder.
        train: Number of normal training images.
        validation: Number of normal validation images.
        test_good: Number of normal test images.
        logical: Number of test images that break a rule; the rules alternate.
        structural: Number of test images with a damaged surface; the kinds of damage and its size alternate.
        image_size: Longest side of the images, pixels; null is the product's own size, 320 to 1000. The same product
            with finer detail: parts and patterns grow, grain and sensor noise stay as fine as a pixel.
        flaw_share: Smallest and largest size of the damage, as fractions of the image; null alternates small and large
            damage, 0.1 to 2 %.
        image_format: File format of the images; masks are always PNG.
    """

    product: int = Field(ge=0)
    category: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    train: int = Field(default=80, ge=0)
    validation: int = Field(default=0, ge=0)
    test_good: int = Field(default=40, ge=0)
    logical: int = Field(default=40, ge=0)
    structural: int = Field(default=40, ge=0)
    image_size: int | None = Field(default=None, ge=256, le=8192)
    flaw_share: tuple[FlawShare, FlawShare] | None = None
    image_format: ImageFormat = "png"

    @model_validator(mode="after")
    def _flaws_show(self) -> Self:
        if self.flaw_share is None:
            return self
        low, high = self.flaw_share
        if low > high:
            raise ValueError(f"flaw_share is {low:g} {high:g}; name the smaller size first")
        height, width = self.drawn_product().image_shape
        if (pixels := low * height * width) < _FEWEST_PIXELS:
            raise ValueError(
                f"flaw_share {low:g} is {pixels:.1f} pixels of {width} x {height}; a flaw needs at least "
                f"{_FEWEST_PIXELS}: use a larger share or a larger image_size"
            )
        return self

    def drawn_product(self) -> Product:
        """The product of the seed, at the size of the images."""
        product = draw_product(self.product)
        return product if self.image_size is None else product.at(self.image_size)


def iterate_product_files(config: ProductConfig) -> Iterator[SceneFile]:
    """Draws the category file by file; holds one image in memory at a time.

    The same configuration gives the same bytes, on the same versions of numpy, scipy and Pillow.

    Args:
        config: Options of the data set.

    Yields:
        `defects_config.json`, then each image, followed by its parts and its mask; at last `product.json`.
    """
    product = config.drawn_product()
    folder = config.category
    yield SceneFile(f"{folder}/defects_config.json", encode_json(defects_config(product)))
    suffix = suffix_of(config.image_format)
    described: dict[str, dict[str, Any]] = {}
    plan: tuple[tuple[Split, Group, int], ...] = (
        ("train", "good", config.train),
        ("validation", "good", config.validation),
        ("test", "good", config.test_good),
        ("test", "logical_anomalies", config.logical),
        ("test", "structural_anomalies", config.structural),
    )
    for split, group, count in plan:
        for index in range(count):
            drawn = draw_image(product, split, group, index, config.flaw_share)
            path = f"{split}/{group}/{index:03d}.{suffix}"
            described[path] = _description(drawn)
            yield SceneFile(f"{folder}/{path}", encode_image(drawn.image, config.image_format), is_image=True)
            parts = encode_image(part_labels(drawn), "png")
            # Folders of the names of splits would be a category of their own.
            yield SceneFile(f"{folder}/parts/{split}-{group}/{index:03d}.png", parts)
            if drawn.defect is not None and drawn.defect_mask is not None:
                mask = drawn.defect_mask * np.uint8(_pixel_value(drawn.defect))
                yield SceneFile(f"{folder}/ground_truth/{group}/{index:03d}/000.png", encode_image(mask, "png"))
    yield SceneFile(f"{folder}/product.json", encode_json({**product_description(product), "images": described}))


def part_labels(drawn: ProductImage) -> npt.NDArray[np.uint16]:
    """Returns the label of each pixel, uint16 [h, w]: 0 outside of parts, i + 1 in part i."""
    labels = np.zeros(drawn.image.shape[:2], np.uint16)
    for number, mask in enumerate(drawn.part_masks, start=1):
        labels[mask] = number
    return labels


def product_description(product: Product) -> dict[str, Any]:
    """Describes a product for `product.json`: seed, size, look, kinds, rules, and the anomalies that break them."""
    height, width = product.image_shape
    return {
        "seed": product.seed,
        "height": height,
        "width": width,
        "layout": product.layout_name,
        "ground": str(product.ground),
        "kinds": [kind.name for kind in product.layout.kinds],
        "rules": list(product.rules),
        "logical_anomalies": [str(one) for one in product.layout.breaks],
        "structural_anomalies": [str(one) for one in Flaw],
    }


def defects_config(product: Product) -> list[dict[str, str | int | float | bool]]:
    """The entries of `defects_config.json`, one for each anomaly.

    The mask of a logical anomaly may cover several places, and finding the area of one part is enough: it saturates at
    the area of the smallest part of an image. A mask of damage saturates at its whole area.
    """
    parts = draw_image(product, "train", "good", 0).part_masks
    smallest = min(int(np.count_nonzero(mask)) for mask in parts)
    return [
        {
            "defect_name": str(defect),
            "pixel_value": _pixel_value(defect),
            "saturation_threshold": 1.0 if isinstance(defect, Flaw) else smallest,
            "relative_saturation": isinstance(defect, Flaw),
        }
        for defect in (*product.layout.breaks, *Flaw)
    ]


def _description(drawn: ProductImage) -> dict[str, Any]:
    """Describes an image for `product.json`: the kind of each part by its label, and the defect and its area."""
    description: dict[str, Any] = {"parts": list(drawn.part_kinds)}
    if drawn.defect is not None and drawn.defect_mask is not None:
        description["defect"] = str(drawn.defect)
        if drawn.flaw_share is not None:
            description["area"] = round(float(drawn.defect_mask.mean()), 6)
    return description


def _pixel_value(defect: Break | Flaw) -> int:
    return _HIGHEST_PIXEL_VALUE - _DEFECTS.index(defect)
