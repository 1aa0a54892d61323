from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.text import component_describer as describers
from uniad_ray.perception.text.component_describer import (
    ComponentDescriber,
    ComponentDescriberConfig,
    colour_words,
    describe_components,
    soft_words,
)
from uniad_ray.perception.text.sentences import sentences

SIDE = 128
RED, GREY, WHITE = (220, 20, 20), (130, 130, 130), (255, 255, 255)


def scene(*parts: tuple[int, slice, slice, tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """A label map and an image: component 0 is grey ground; each part has a label, a position and a colour."""
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    image = np.full((SIDE, SIDE, 3), GREY, dtype=np.uint8)
    for label, rows, columns, colour in parts:
        labels[rows, columns] = label
        image[rows, columns] = colour
    return labels, image


def facts(*parts: tuple[int, slice, slice, tuple[int, int, int]], clusters: int = 3, **options: Any) -> list[str]:
    return sentences(describe_components(*scene(*parts), clusters, ComponentDescriberConfig(**options)))


# Component 1: 24 x 24 red pixels at the top left. Component 2: 8 x 8 white pixels at the right.
LARGE = (1, slice(8, 32), slice(8, 32), RED)
SMALL = (2, slice(60, 68), slice(110, 118), WHITE)


def test_a_scene_is_described_fact_by_fact() -> None:
    assert facts(LARGE, SMALL) == [
        "component 0 is dominant, about 90 percent of the image",
        "component 0 is grey",
        "component 0 has 1 piece",
        "component 0 has 1 piece at the middle centre",
        "component 1 is small, about 3 percent of the image",
        "component 1 is bright red",
        "component 1 has 1 piece",
        "component 1 has 1 piece at the top left",
        "component 2 is tiny, about 0.3 or 0.5 percent of the image",
        "component 2 is white",
        "component 2 has 1 piece",
        "component 2 has 1 piece at the middle right",
        "component 0 is right of component 1",
        "component 0 is below component 1",
        "component 0 is left of component 2",
        "component 0 is level with component 2",
        "component 1 is left of component 2",
        "component 1 is above component 2",
    ]


def test_every_word_is_reached_and_neighbours_share_a_border() -> None:
    words = [soft_words(value, (1.0, 2.0), ("low", "mid", "high"), 0.1) for value in (0.5, 0.95, 1.05, 1.5, 2.0, 3.0)]

    assert words == ["low", "low or mid", "low or mid", "mid", "mid or high", "high"]


@given(st.floats(-1, 4), st.floats(0, 0.19))
def test_small_step_changes_at_most_one_word(value: float, step: float) -> None:
    before, after = (
        set(soft_words(number, (1.0, 2.0), ("low", "mid", "high"), 0.1).split(" or "))
        for number in (value, value + step)
    )

    assert before & after


def test_margins_do_not_overlap_at_maximum_softness() -> None:
    margins = {
        describers._LOG_SIZE_BORDERS: describers._SIZE_MARGIN,
        describers._LOG_PERCENT_BORDERS: describers._SIZE_MARGIN,
        describers._THIRDS: describers._PLACE_MARGIN,
        describers._OFFSET_BORDERS: describers._PLACE_MARGIN,
        describers._GREY_BORDERS: describers._BRIGHTNESS_MARGIN,
        describers._HUE_BORDERS: describers._HUE_MARGIN,
    }
    for borders, margin in margins.items():
        assert min(b - a for a, b in itertools.pairwise(borders)) > 2 * 1.5 * margin


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((0, 0, 0), "black"),
        ((70, 70, 70), "dark grey"),
        ((130, 130, 130), "grey"),
        ((200, 200, 200), "light grey"),
        ((255, 255, 255), "white"),
        ((230, 20, 20), "bright red"),
        ((230, 20, 60), "bright pink or red"),
        ((90, 10, 10), "dark red"),
        ((255, 130, 0), "bright orange"),
        ((240, 230, 30), "bright yellow"),
        ((20, 160, 40), "bright green"),
        ((0, 200, 210), "bright turquoise"),
        ((20, 40, 200), "bright blue"),
        ((130, 20, 230), "bright purple"),
        ((150, 120, 120), "grey or bright red"),
    ],
)
def test_colours_have_their_common_names(colour: tuple[int, int, int], name: str) -> None:
    red, green, blue = (channel / 255 for channel in colour)

    assert colour_words(red, green, blue, 1.0) == name


def test_missing_component_is_absent() -> None:
    assert "component 2 is absent" in facts(LARGE)
    assert not any("component 2" in fact for fact in facts(LARGE) if fact != "component 2 is absent")


def test_pieces_are_counted_and_placed() -> None:
    pieces = [(1, slice(top, top + 16), slice(left, left + 16), RED) for top, left in ((8, 8), (100, 8), (100, 100))]

    assert {
        "component 1 has 3 pieces",
        "component 1 has 1 piece at the top left",
        "component 1 has 1 piece at the bottom left",
        "component 1 has 1 piece at the bottom right",
    } < set(facts(*pieces, pieces[0]))
    assert not any("component 1" in fact and " at the " in fact for fact in facts(*pieces, most_pieces=2))
    assert "component 1 has 2 pieces at the top left" in facts(
        (1, slice(8, 16), slice(8, 16), RED), (1, slice(24, 32), slice(8, 16), RED)
    )


def test_small_piece_makes_the_count_uncertain() -> None:
    speck = (1, slice(100, 106), slice(100, 106), RED)  # 9 of the 64 x 64 sampled pixels

    assert "component 1 has 1 or 2 pieces" in facts(LARGE, speck, smallest_piece=9 / 4096)
    assert "component 1 has 2 pieces" in facts(LARGE, speck, smallest_piece=4 / 4096)
    assert "component 1 has 1 piece" in facts(LARGE, speck, smallest_piece=10 / 4096)


def test_small_shift_keeps_most_facts() -> None:
    def shifted(part: tuple[int, slice, slice, tuple[int, int, int]], by: int) -> Any:
        label, rows, columns, colour = part
        return label, slice(rows.start + by, rows.stop + by), slice(columns.start + by, columns.stop + by), colour

    before = set(facts(LARGE, SMALL))
    for by in (1, 2, 3):
        assert len(before - set(facts(shifted(LARGE, by), shifted(SMALL, by)))) <= 2


def test_moves_swaps_and_losses_change_the_text() -> None:
    before = set(facts(LARGE, SMALL))
    moved = set(facts(LARGE, (2, slice(60, 68), slice(10, 18), WHITE)))
    swapped = set(facts((2, *LARGE[1:]), (1, *SMALL[1:])))

    assert "component 2 has 1 piece at the middle left" in moved - before
    assert "component 1 is white" in swapped - before
    assert "component 2 is absent" in set(facts(LARGE)) - before


def test_relations_can_be_left_out() -> None:
    assert facts(LARGE, SMALL, relations=False) == facts(LARGE, SMALL)[:12]


def extract(count: int) -> Perception:
    rng = np.random.default_rng(3)
    labels, images = zip(*(scene((1, slice(8, 20 + 9 * n), slice(8, 40), RED)) for n in range(count)), strict=True)
    fields = {
        "parts/labels": torch.from_numpy(np.stack(labels))[:, None],
        "parts/similarity": torch.from_numpy(rng.normal(size=(count, 2, 4, 4)).astype(np.float32)),
    }
    return Perception([f"image-{n}" for n in range(count)], np.stack(images), fields)


def test_text_does_not_depend_on_the_batch() -> None:
    describer = ComponentDescriber("description", ComponentDescriberConfig(components="parts"), "cpu")
    batch = extract(3)

    texts = describer.extract(batch)["description/text"]

    assert isinstance(describer, Extractor)
    assert describer.needs == {"parts/labels", "parts/similarity"}
    assert describer.provides == ComponentDescriber.fields_of("description", describer.config) == {"description/text"}
    assert len(set(texts)) == 3
    for row in range(3):
        fields = {name: field[row : row + 1] for name, field in batch.fields.items()}
        alone = Perception(batch.row_keys[row : row + 1], batch.images[row : row + 1], fields)
        assert describer.extract(alone)["description/text"] == texts[row : row + 1]
    assert describer.lineage()["softness"] == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.integers(1, 6))
def test_any_label_map_is_described(seed: int, height: int, width: int, clusters: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, clusters, (height, width), dtype=np.uint8)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    text = describe_components(labels, image, clusters, ComponentDescriberConfig())

    assert all(f"Component {component} is" in text for component in range(clusters))


@pytest.mark.parametrize("options", [{"softness": -1}, {"softness": 2}, {"smallest_piece": 0}, {"most_pieces": 0}])
def test_invalid_options_are_rejected(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ComponentDescriberConfig.model_validate(options)
