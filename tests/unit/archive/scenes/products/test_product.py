from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest

from uniad_ray.archive.scenes.files import Group
from uniad_ray.archive.scenes.products.kinds import draw_kinds
from uniad_ray.archive.scenes.products.model import Break, Flaw, Ground
from uniad_ray.archive.scenes.products.product import LAYOUTS, SMALL_FLAW, Product, draw_image, draw_product


@cache
def products() -> list[Product]:
    return [draw_product(seed) for seed in range(60)]


def smallest_of(layout: str) -> Product:
    """The product of a layout with the smallest images."""
    return min((one for one in products() if one.layout_name == layout), key=lambda one: one.shape[0] * one.shape[1])


def test_images_have_every_size_and_ground() -> None:
    sides = np.array([product.shape for product in products()])
    assert sides.min() >= 256
    assert sides.max() <= 1000
    assert sides.max() > 800
    assert {True, False} == {height == width for height, width in sides}
    assert (sides[:, 0] > sides[:, 1]).any()
    assert {product.ground for product in products()} == set(Ground)
    assert {product.layout_name for product in products()} == set(LAYOUTS)


def test_same_seed_draws_the_same_product() -> None:
    one, two = draw_product(7), draw_product(7)
    assert (one.shape, one.ground, one.ground_colour, one.rules) == (
        two.shape,
        two.ground,
        two.ground_colour,
        two.rules,
    )
    assert one.layout.kinds == two.layout.kinds
    assert draw_product(8).rules != one.rules


def test_kinds_differ_from_each_other_and_from_the_ground() -> None:
    grey = 0
    for product in products():
        if product.layout_name in ("container", "wires"):
            continue
        for kind in product.layout.kinds:
            assert max(abs(a - b) for a, b in zip(kind.colour, product.ground_colour, strict=True)) > 0.1
        grey += all(max(kind.colour) - min(kind.colour) < 0.01 for kind in product.layout.kinds)
        assert len({kind.name for kind in product.layout.kinds}) == len(product.layout.kinds)
    assert grey >= 3


def test_alike_kinds_are_refused() -> None:
    refused = 0
    for seed in range(40):
        try:
            kinds = draw_kinds(np.random.default_rng(seed), (400, 400), (0.1, 0.1, 0.1))
        except ValueError:
            refused += 1
            continue
        assert 2 <= len(kinds) <= 5
        for kind in kinds:
            assert 0.0099 <= kind.outline.area() * kind.size**2 / 160_000 <= 0.201
    assert 0 < refused < 40


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_their_truth(layout: str) -> None:
    product = smallest_of(layout)
    groups: tuple[Group, ...] = ("good", "logical_anomalies", "structural_anomalies")
    for group in groups:
        drawn = draw_image(product, "test", group, 1)
        assert drawn.image.shape == (*product.shape, 3)
        assert drawn.image.dtype == np.uint8
        assert len(drawn.part_masks) == len(drawn.part_kinds) > 0
        counted = np.sum([mask.astype(int) for mask in drawn.part_masks], axis=0)
        assert counted.max() == 1
        assert all(mask.any() for mask in drawn.part_masks)
        if group == "good":
            assert drawn.defect is drawn.defect_mask is drawn.flaw_share is None
            continue
        assert drawn.defect_mask is not None
        assert drawn.defect_mask.any()
        if group == "logical_anomalies":
            assert drawn.defect is product.layout.breaks[1 % len(product.layout.breaks)]
        else:
            assert drawn.defect is Flaw.DENT
    same = draw_image(product, "test", "structural_anomalies", 1)
    assert (same.image == drawn.image).all()
    assert (draw_image(product, "test", "structural_anomalies", 2).image != drawn.image).any()


def test_logical_anomalies_alternate_and_their_masks_cover_the_change() -> None:
    product = smallest_of("grid")
    breaks = product.layout.breaks
    drawn = [draw_image(product, "test", "logical_anomalies", index) for index in range(len(breaks) + 1)]
    assert [one.defect for one in drawn] == [*breaks, breaks[0]]
    missing = drawn[breaks.index(Break.MISSING)]
    assert missing.defect_mask is not None
    assert not any((mask & missing.defect_mask).any() for mask in missing.part_masks)
    extra = drawn[breaks.index(Break.EXTRA)]
    assert extra.defect_mask is not None
    assert sum((mask & extra.defect_mask).any() for mask in extra.part_masks) >= 1


def test_half_of_the_flaws_are_small_and_masks_tell_which() -> None:
    product = smallest_of("slots")
    drawn = [draw_image(product, "test", "structural_anomalies", index) for index in range(12)]
    for one in drawn:
        assert one.flaw_share is not None
        assert one.defect_mask is not None
        area = float(one.defect_mask.mean())
        assert area == pytest.approx(one.flaw_share, rel=0.25)
        assert (area < SMALL_FLAW) == (one.flaw_share < SMALL_FLAW)
        assert 0.001 <= one.flaw_share <= 0.02
    small = [one.defect for one in drawn if (one.flaw_share or 1) < SMALL_FLAW]
    assert sorted(small) == sorted(Flaw)


@pytest.mark.parametrize("layout", ["scattered", "wires", "grid"])
def test_larger_images_show_the_same_product_in_finer_detail(layout: str) -> None:
    product = smallest_of(layout)
    larger = product.at(2 * max(product.shape))
    height, width = product.shape
    for group in ("good", "logical_anomalies"):
        own, fine = draw_image(product, "test", group, 1), draw_image(larger, "test", group, 1)
        assert fine.image.shape == (2 * height, 2 * width, 3)
        assert fine.part_kinds == own.part_kinds
        reduced = fine.image.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
        assert np.corrcoef(reduced.ravel(), own.image.ravel())[0, 1] > 0.9
        for one, two in zip(own.part_masks, fine.part_masks, strict=True):
            assert (one & two[::2, ::2]).sum() > 0.9 * (one | two[::2, ::2]).sum()
        # The grain of a sensor is as fine as a pixel at every size.
        assert np.abs(np.diff(fine.image.astype(int), axis=1)).mean() > 0.5
        if own.defect_mask is not None and fine.defect_mask is not None:
            reported = own.defect_mask, fine.defect_mask[::2, ::2]
            assert np.logical_and(*reported).sum() > 0.9 * np.logical_or(*reported).sum()


def test_flaws_have_the_stated_share() -> None:
    product = smallest_of("scattered").at(1024)
    for index in range(6):
        drawn = draw_image(product, "test", "structural_anomalies", index, (0.0002, 0.0004))
        assert drawn.defect_mask is not None
        assert 0.9 * 0.0002 <= drawn.defect_mask.mean() <= 1.1 * 0.0004


def test_flaws_show_in_the_image() -> None:
    product = smallest_of("scattered")
    for index in range(6):
        drawn = draw_image(product, "test", "structural_anomalies", index)
        assert drawn.defect_mask is not None
        rows, columns = np.nonzero(drawn.defect_mask)
        window = np.s_[max(0, rows.min() - 8) : rows.max() + 8, max(0, columns.min() - 8) : columns.max() + 8]
        grey = drawn.image.mean(axis=2)[window]
        mask = drawn.defect_mask[window]
        assert abs(grey[mask].mean() - grey[~mask].mean()) > 4, drawn.defect


def test_images_of_a_product_differ_while_its_fixtures_stay() -> None:
    product = smallest_of("kit")
    images = [draw_image(product, "train", "good", index).image.astype(int) for index in range(3)]
    assert all(np.abs(one - two).max() > 40 for one, two in combinations(images, 2))
