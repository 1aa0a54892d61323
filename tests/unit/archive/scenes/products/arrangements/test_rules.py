from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.product_rules import broken_rules

from uniad_ray.archive.scenes.products.arrangements.linked import Wires
from uniad_ray.archive.scenes.products.arrangements.loose import Scattered
from uniad_ray.archive.scenes.products.arrangements.places import Grid, Slots
from uniad_ray.archive.scenes.products.arrangements.touching import overlap
from uniad_ray.archive.scenes.products.model import Break
from uniad_ray.archive.scenes.products.product import Product, draw_product

NAMES = ("Scattered", "Rows", "Grid", "Slots", "Kit", "Pair", "Container", "Wires", "Mixture", "Printed")


@cache
def products() -> list[Product]:
    return [draw_product(seed) for seed in range(60)]


def of(name: str) -> list[Product]:
    return [product for product in products() if type(product.layout).__name__ == name]


def test_seeds_draw_every_layout_and_break() -> None:
    assert {type(product.layout).__name__ for product in products()} == set(NAMES)
    assert {which for product in products() for which in product.layout.breaks} == set(Break)


@pytest.mark.parametrize("name", NAMES)
def test_normal_arrangements_keep_all_rules(name: str) -> None:
    for product in of(name):
        for trial in range(4):
            arrangement = product.layout.normal(np.random.default_rng([product.seed, trial]))
            assert broken_rules(product.layout, arrangement) == set(), product.seed
            assert not arrangement.suspects
            assert not arrangement.places


@pytest.mark.parametrize("name", NAMES)
def test_every_break_breaks_exactly_its_rule(name: str) -> None:
    for product in of(name):
        for which in product.layout.breaks:
            for trial in range(4):
                arrangement = product.layout.broken(which, np.random.default_rng([product.seed, 9, trial]))
                assert broken_rules(product.layout, arrangement) == {which}, product.seed
                assert arrangement.suspects or arrangement.places
                assert all(0 <= index < len(arrangement.parts) for index in arrangement.suspects)


def test_parts_and_reported_places_lie_inside_the_image() -> None:
    for product in products():
        layout, (height, width) = product.layout, product.shape
        rng = np.random.default_rng(product.seed)
        for arrangement in (layout.normal(rng), *(layout.broken(which, rng) for which in layout.breaks)):
            for part in arrangement.parts:
                assert 0 < part.x < width, product.seed
                assert 0 < part.y < height, product.seed
            for left, top, right, bottom in arrangement.places:
                assert 0 <= left < right <= width
                assert -height * 0.2 <= top < bottom <= height * 1.2


def test_rules_name_what_varies_freely() -> None:
    numbered = [product for product in products() if product.layout.print_kinds]
    assert numbered
    for product in numbered:
        drawn = [
            [part.kind for part in product.layout.normal(np.random.default_rng(trial)).prints] for trial in range(4)
        ]
        assert len({tuple(digits) for digits in drawn}) > 1
        assert any("number" in rule and "free" in rule for rule in product.rules)


def test_agreeing_compartments_vary_together() -> None:
    for product in of("Pair"):
        numbers = {len(product.layout.normal(np.random.default_rng(trial)).parts) for trial in range(12)}
        assert len(numbers) > 1
        assert all(number % 2 == 0 for number in numbers)


@pytest.mark.parametrize("name", ["Scattered", "Slots", "Grid", "Kit", "Pair"])
def test_parts_do_not_overlap_in_normal_images(name: str) -> None:
    for product in of(name):
        kinds = product.layout.kinds
        parts = product.layout.normal(np.random.default_rng(1)).parts
        for index, one in enumerate(parts):
            # Two pixels: touching parts meet at their rims.
            slimmer = replace(one, scale=one.scale * (1 - 2 / kinds[one.kind].size))
            assert not any(overlap(other, slimmer, kinds) for other in parts[:index]), product.seed


def test_a_turned_part_has_a_direction_that_its_kind_has_in_normal_images() -> None:
    turned = [product for product in products() if Break.TURNED in product.layout.breaks]
    assert {type(product.layout).__name__ for product in turned} == {"Rows", "Grid", "Slots", "Printed"}
    for product in turned:
        normal = [product.layout.normal(np.random.default_rng(trial)) for trial in range(12)]
        usual = {(part.kind, round(part.angle / 45) % 8) for arrangement in normal for part in arrangement.parts}
        arrangement = product.layout.broken(Break.TURNED, np.random.default_rng(0))
        (index,) = arrangement.suspects
        part = arrangement.parts[index]
        assert (part.kind, round(part.angle / 45) % 8) in usual, product.seed


def test_an_empty_place_is_usual_where_places_are_drawn() -> None:
    for product in products():
        layout = product.layout
        if isinstance(layout, Grid):
            assert layout.empty
        elif isinstance(layout, Wires):
            assert all(layout.free)
        elif isinstance(layout, Slots) and layout.fixtures:
            for trial in range(4):
                arrangement = layout.broken(Break.MISSING, np.random.default_rng(trial))
                lost = Counter(part.kind for part in layout.places) - Counter(part.kind for part in arrangement.parts)
                assert set(lost) <= {part.kind for part in layout.spare}


def test_some_products_have_touching_parts_of_one_colour() -> None:
    def touches(product: Product) -> int:
        kinds = product.layout.kinds
        parts = product.layout.normal(np.random.default_rng(2)).parts
        wider = [replace(part, scale=part.scale * (1 + 2 / kinds[part.kind].size)) for part in parts]
        return sum(overlap(one, two, kinds) for index, one in enumerate(wider) for two in parts[:index])

    def of_one_grey(product: Product) -> bool:
        colours = {kind.colour for kind in product.layout.kinds}
        return (
            isinstance(product.layout, Scattered)
            and all(max(one) - min(one) < 0.01 for one in colours)
            and len(colours) == 1
        )

    scattered = [product for product in of("Scattered") if isinstance(product.layout, Scattered)]
    touching = [product for product in scattered if product.layout.touching]
    assert all(touches(product) >= 2 for product in touching)
    assert 0 < len(touching) < len(scattered)
    equal = (draw_product(seed) for seed in range(100, 200))
    product = next(one for one in equal if of_one_grey(one) and touches(one) >= 2)
    assert broken_rules(product.layout, product.layout.normal(np.random.default_rng(0))) == set()
