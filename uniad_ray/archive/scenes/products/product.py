"""A product that a seed draws: its look, its kinds of parts, its layout and its rules; and images of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from uniad_ray.archive.scenes.damage import BoolPlane, Surface
from uniad_ray.archive.scenes.files import GROUPS, SPLITS, Group, Split
from uniad_ray.archive.scenes.products import painting
from uniad_ray.archive.scenes.products.arrangements.base import Arrangement, Layout
from uniad_ray.archive.scenes.products.arrangements.kits import draw_kit
from uniad_ray.archive.scenes.products.arrangements.linked import Container, Printed, Wires
from uniad_ray.archive.scenes.products.arrangements.loose import Mixture, Rows, Scattered
from uniad_ray.archive.scenes.products.arrangements.places import Grid, Slots
from uniad_ray.archive.scenes.products.flaws import draw_flaw
from uniad_ray.archive.scenes.products.grounds import draw_ground
from uniad_ray.archive.scenes.products.kinds import draw_colour, draw_kinds
from uniad_ray.archive.scenes.products.model import Break, Flaw, Ground, Kind, Part, Rgb, View
from uniad_ray.archive.scenes.products.shapes import draw_outline

LAYOUTS: Final[dict[str, Callable[[np.random.Generator, tuple[int, int], tuple[Kind, ...]], Layout]]] = {
    "scattered": Scattered,
    "rows": Rows,
    "grid": Grid,
    "slots": Slots,
    "kit": draw_kit,
    "container": Container,
    "wires": Wires,
    "mixture": Mixture,
    "printed": Printed,
}
FLAW_SIZES: Final = ((0.0011, 0.0036), (0.0044, 0.02))
"""Sizes of small and large flaws, as fractions of the image; the area of a mask tells one from the other."""
SMALL_FLAW: Final = 0.004
"""Border between small and large flaws, as a fraction of the image."""
_ON_PARTS: Final = 0.8
"""Share of the flaws that lie on a part, if one is large enough."""
_WIRE: Final = Kind("wire", draw_outline(np.random.default_rng(0), "bar"), 1.0, (0.5, 0.5, 0.5), gloss=0.3)


@dataclass(frozen=True, slots=True)
class Product:
    """A product.

    Attributes:
        seed: Its seed.
        shape: Its own height and width, pixels; parts and layout are stated in these.
        ground: What its parts lie on.
        ground_colour: The colour of the ground.
        layout_name: Name of its layout.
        layout: Arranges its parts.
        looseness: How much place, direction and size of the whole content vary, from 0 to 1.
        resolution: Pixels of its images per pixel of its own size. Arrangements and views do not depend on it; grain,
            noise and flaws do.
    """

    seed: int
    shape: tuple[int, int]
    ground: Ground
    ground_colour: Rgb
    layout_name: str
    layout: Layout
    looseness: float
    resolution: float = 1.0

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images that are drawn, pixels."""
        height, width = (round(side * self.resolution) for side in self.shape)
        return height, width

    def at(self, longest_side: int) -> Product:
        """The same product through a finer camera, or a coarser one: the longest side of its images, pixels."""
        return replace(self, resolution=longest_side / max(self.shape))

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules as sentences."""
        return self.layout.rules


@dataclass(frozen=True, slots=True)
class ProductImage:
    """An image of a product and its truth.

    Attributes:
        image: uint8 [h, w, 3], RGB.
        part_masks: Visible pixels of each part, bool [h, w].
        part_kinds: Name of the kind of each part.
        defect: The broken rule or the flaw; None for a normal image.
        defect_mask: Where it may be reported, bool [h, w]; None for a normal image.
        flaw_share: Stated size of the flaw, as a fraction of the image; None without a flaw.
    """

    image: npt.NDArray[np.uint8]
    part_masks: tuple[BoolPlane, ...]
    part_kinds: tuple[str, ...]
    defect: Break | Flaw | None = None
    defect_mask: BoolPlane | None = None
    flaw_share: float | None = None


def draw_product(seed: int) -> Product:
    """Draws the product of a seed."""
    rng = np.random.default_rng([seed, 0x70726F64])
    longer, shorter = int(rng.integers(320, 1001)), 0
    shorter = longer if rng.random() < 0.25 else int(max(256, longer * rng.uniform(0.6, 0.95)))
    shape = (shorter, longer) if rng.random() < 0.75 else (longer, shorter)
    name = str(rng.choice(list(LAYOUTS)))
    ground = Ground(str(rng.choice([one.value for one in Ground])))
    if name == "printed":
        ground = Ground.CARD
    grey = rng.random() < 0.4
    brightness = float(rng.uniform(0.05, 0.6))
    ground_colour = draw_colour(rng, brightness, 0.0 if grey else 0.25)
    for attempt in range(100):
        try:
            kinds = draw_kinds(np.random.default_rng([seed, 1, attempt]), shape, ground_colour)
            layout = LAYOUTS[name](np.random.default_rng([seed, 2, attempt]), shape, kinds)
            layout.normal(np.random.default_rng([seed, 3, attempt]))
        except ValueError:
            continue
        return Product(seed, shape, ground, ground_colour, name, layout, float(rng.uniform(0.1, 1.0)))
    raise ValueError(f"no arrangement fits product {seed}")


def draw_image(
    product: Product, split: Split, group: Group, index: int, flaw_shares: tuple[float, float] | None = None
) -> ProductImage:
    """Draws one image of a product; it depends on nothing but these arguments.

    Args:
        product: The product.
        split: `train`, `validation` or `test`.
        group: Normal, logical or structural; the anomalies alternate.
        index: Number of the image, from 0.
        flaw_shares: Smallest and largest size of a flaw, as fractions of the image; None alternates small and large
            ones, see `FLAW_SIZES`.
    """
    key = [product.seed, 4, SPLITS.index(split), GROUPS.index(group), index]
    rng = np.random.default_rng(key)
    layout = product.layout
    broken = layout.breaks[index % len(layout.breaks)] if group == "logical_anomalies" else None
    arrangement = layout.normal(rng) if broken is None else layout.broken(broken, rng)
    spread = product.looseness
    shift = spread * 0.012 * float(np.sqrt(product.shape[0] * product.shape[1])) * rng.uniform(-1.7, 1.7, 2)
    view = View(
        shift=(float(shift[0]), float(shift[1])),
        turn=spread * 3.0 * float(rng.uniform(-1.7, 1.7)),
        zoom=1 + spread * 0.02 * float(rng.uniform(-1.7, 1.7)),
        exposure=float(np.exp(rng.normal(0, 0.04))),
        tint=(1.0, float(rng.uniform(0.98, 1.0)), float(rng.uniform(0.96, 1.0))),
        azimuth=float(np.random.default_rng([product.seed, 5]).uniform(0, 360) + rng.normal(0, 4)),
        noise=float(rng.uniform(1.0, 2.5)),
    )
    if group != "structural_anomalies":
        return _draw(product, arrangement, view, broken, None, rng)
    low, high = flaw_shares or FLAW_SIZES[(index + index // len(Flaw)) % 2]
    share = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return _draw(product, arrangement, view, None, (tuple(Flaw)[index % len(Flaw)], share), rng)


def _draw(
    product: Product,
    arrangement: Arrangement,
    view: View,
    broken: Break | None,
    flaw: tuple[Flaw, float] | None,
    rng: np.random.Generator,
) -> ProductImage:
    layout, shape, resolution = product.layout, product.image_shape, product.resolution
    shared = np.random.default_rng([product.seed, 6])
    surface = draw_ground(product.ground, product.ground_colour, shape, shared, rng, resolution)

    def through_camera(part: Part) -> Part:
        moved = view.seen(part, product.shape)
        return moved if resolution == 1 else moved.enlarged(resolution)

    fixed_rng = np.random.default_rng([product.seed, 7])
    for part in layout.fixtures:
        moved = through_camera(part)
        place = painting.footprint(moved, layout.fixture_kinds[part.kind], shape, resolution)
        if place is not None:
            painting.paint_part(surface, place, layout.fixture_kinds[part.kind], moved, fixed_rng)
    places: list[painting.Footprint | None] = []
    names = []
    for part in arrangement.parts:
        moved = through_camera(part)
        is_wire = part.kind < 0
        kind = _WIRE if is_wire else layout.kinds[part.kind]
        place = painting.wire_footprint(moved, shape) if is_wire else painting.footprint(moved, kind, shape, resolution)
        if place is not None:
            painting.paint_part(surface, place, kind, moved, rng)
        places.append(place)
        names.append(kind.name)
    masks = painting.visible_masks(places, shape)
    for part in arrangement.prints:
        moved = through_camera(part)
        place = painting.footprint(moved, layout.print_kinds[part.kind], shape, resolution)
        if place is not None:
            painting.paint_part(surface, place, layout.print_kinds[part.kind], moved, rng)
    defect_mask = None
    if broken is not None:
        defect_mask = _reported(arrangement, masks, view, product)
    if flaw is not None:
        defect_mask = _damage(surface, *flaw, masks, rng)
    image = painting.photograph(surface, view, rng, resolution)
    seen = [index for index, mask in enumerate(masks) if mask.any()]
    return ProductImage(
        image,
        tuple(masks[index] for index in seen),
        tuple(names[index] for index in seen),
        broken or (flaw and flaw[0]),
        defect_mask,
        flaw[1] if flaw else None,
    )


def _reported(arrangement: Arrangement, masks: list[BoolPlane], view: View, product: Product) -> BoolPlane:
    mask = np.zeros(product.image_shape, np.bool_)
    for index in arrangement.suspects:
        mask |= masks[index]
    if arrangement.places:
        x, y = view.origins(product.shape, product.resolution)
        for left, top, right, bottom in arrangement.places:
            mask |= (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return mask


def _damage(surface: Surface, flaw: Flaw, share: float, masks: list[BoolPlane], rng: np.random.Generator) -> BoolPlane:
    """Damages a part, or now and then the ground."""
    area = share * surface.height.size
    fitting = [mask for mask in masks if mask.sum() >= 1.5 * area]
    if fitting and rng.random() < _ON_PARTS:
        drawn = draw_flaw(surface, flaw, area, fitting[int(rng.integers(len(fitting)))], rng)
        if drawn is not None:
            return drawn
    drawn = draw_flaw(surface, flaw, area, np.ones(surface.height.shape, np.bool_), rng)
    if drawn is None:
        raise ValueError(f"a {flaw} of {share:.2%} does not fit into the image")
    return drawn
