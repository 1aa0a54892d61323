from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load, save
from torch.nn import functional

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Expert
from uniad_ray.experts.relations import Relations, RelationsConfig, _label_sets
from uniad_ray.perception.base import Perception, State

SIDE, CELL = 96, 32
FIELD = "pyramid/level2"
NORMALS = [f"normal-{number:02d}" for number in range(40)]
SIZES = {"block": (18, 18), "bar": (7, 24), "pin": (10, 6)}
RED, BLUE = (200, 40, 40), (40, 40, 200)


@dataclass(frozen=True)
class Piece:
    kind: str
    cell: tuple[int, int]
    colour: tuple[int, int, int]


def tray(key: str) -> list[Piece]:
    """A block, a bar of its colour that is never left of it, and two pins of either colour, in cells of their own."""
    rng = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    while True:
        places = [(int(cell) // 3, int(cell) % 3) for cell in rng.permutation(9)[:4]]
        if places[1][1] >= places[0][1]:
            break
    shared, pins = ((RED, BLUE)[int(index)] for index in rng.integers(2, size=2))
    kinds = ("block", "bar", "pin", "pin")
    return [Piece(kind, cell, pins if kind == "pin" else shared) for kind, cell in zip(kinds, places, strict=True)]


def perceive(trays: dict[str, Sequence[Piece]]) -> Perception:
    """Draws trays on a dark ground; label 1 is their pieces, and label 2 a frame around all."""
    images = np.full((len(trays), SIDE, SIDE, 3), 30, dtype=np.uint8)
    labels = np.zeros((len(trays), 1, SIDE, SIDE), dtype=np.uint8)
    labels[:, :, :2] = labels[:, :, :, :2] = 2
    for row, (key, pieces) in enumerate(trays.items()):
        rng = np.random.default_rng(int.from_bytes(key[::-1].encode(), "little"))
        for piece in pieces:
            height, width = SIZES[piece.kind]
            top, left = (int(CELL * index + rng.integers(3, 5)) for index in piece.cell)
            images[row, top : top + height, left : left + width] = piece.colour
            labels[row, 0, top : top + height, left : left + width] = 1
        images[row] = np.clip(images[row] + rng.normal(size=images[row].shape) * 3, 0, 255).astype(np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255
    fields = {
        FIELD: functional.adaptive_avg_pool2d(pixels, 12),
        "parts/labels": torch.from_numpy(labels),
        "parts/similarity": torch.zeros(len(trays), 3, 12, 12),
    }
    return Perception(list(trays), images, fields)


def stream_of(keys: Sequence[str], batch: int = 7) -> Iterator[Perception]:
    for start in range(0, len(keys), batch):
        yield perceive({key: tray(key) for key in keys[start : start + batch]})


def fitted(keys: Sequence[str] = NORMALS, batch: int = 7, **options: Any) -> Relations:
    settings = {"components": "parts", "fields": [FIELD], "map_size": 48, **options}
    expert = Relations("relations", RelationsConfig.model_validate(settings))
    expert.fit(lambda: stream_of(keys, batch))
    return expert


@pytest.fixture(scope="module")
def expert() -> Relations:
    return fitted()


@pytest.fixture(scope="module")
def usual_score(expert: Relations) -> float:
    return float(max(max(expert.score(one).scores) for one in stream_of([f"test-{number}" for number in range(20)])))


def edited(kind: str) -> dict[str, Sequence[Piece]]:
    """A tray with one rule broken."""
    block, bar, pin, other = tray("test-3")
    empty = next(
        (row, column)
        for row in range(3)
        for column in range(3)
        if (row, column) not in {piece.cell for piece in (block, bar, pin, other)}
    )
    return {
        "missing": {kind: [block, bar, pin]},
        "extra": {kind: [block, bar, pin, other, replace(block, cell=empty)]},
        "wrong pair": {kind: [block, replace(bar, colour=RED if bar.colour == BLUE else BLUE), pin, other]},
        "left right": {kind: [block, bar, pin, replace(other, colour=RED if other.colour == BLUE else BLUE)]},
        "swapped": {
            kind: [
                replace(block, cell=(0, 2)),
                replace(bar, cell=(0, 0)),
                replace(pin, cell=(2, 0)),
                replace(other, cell=(2, 2)),
            ]
        },
    }[kind]


def test_keeps_the_contract(expert: Relations) -> None:
    evidence = expert.score(perceive({key: tray(key) for key in "abc"}))

    assert isinstance(expert, Expert)
    assert expert.needs == {"parts/labels", "parts/similarity", FIELD}
    assert evidence.scores.shape == (3,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is not None
    assert evidence.maps.shape == (3, 48, 48)
    assert evidence.maps.dtype == np.float32
    assert len(evidence.reasons) == 3


def test_the_kinds_and_their_counts_are_found_without_labels(expert: Relations) -> None:
    bank = expert._bank

    assert bank is not None
    assert sorted(np.bincount(bank.kinds).tolist()) == [len(NORMALS), len(NORMALS), 2 * len(NORMALS)]
    assert expert.state().document["foreground"] == [1]


def test_sets_of_labels_are_few_however_many_labels_there_are() -> None:
    assert _label_sets(3, 3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    assert len(_label_sets(12, 3)) == 12 + 66 + 220
    assert len(_label_sets(20, 3)) == 20 + 190
    assert len(_label_sets(64, 3)) == 64


@pytest.mark.parametrize("kind", ["missing", "extra", "wrong pair", "left right", "swapped"])
def test_a_broken_rule_is_found(expert: Relations, usual_score: float, kind: str) -> None:
    assert float(expert.score(perceive(edited(kind))).scores[0]) > usual_score


def test_reasons_name_the_broken_rule(expert: Relations) -> None:
    said = {kind: expert.score(perceive(edited(kind))).reasons[0] for kind in ("missing", "extra", "wrong pair")}

    assert any(reason.startswith("2 of part") and reason.endswith("expected, 1 found") for reason in said["missing"])
    assert any(reason.endswith("expected, 2 found") for reason in said["extra"])
    assert any(reason.startswith("the colours of") for reason in said["wrong pair"])
    assert all(len(reasons) <= 3 for reasons in said.values())


def test_the_map_shows_a_part_too_many_and_where_a_missing_one_may_stand() -> None:
    expert = fitted(smoothing=0.0)
    extra, missing = (expert.score(perceive(edited(kind))) for kind in ("extra", "missing"))

    assert extra.maps is not None
    assert missing.maps is not None
    block = edited("extra")["extra"][0].cell
    middle = extra.maps[0][16 * block[0] + 6, 16 * block[1] + 6]
    assert middle == extra.maps[0].max() == extra.scores[0]
    # Pins stand in any cell, if not equally often.
    assert missing.maps[0].max() == pytest.approx(missing.scores[0])
    assert all(
        missing.maps[0][16 * row : 16 * row + 16, 16 * column : 16 * column + 16].max() > 0
        for row in range(3)
        for column in range(3)
    )
    assert missing.maps[0][14:16].max() == 0.0


@settings(max_examples=3, deadline=None)
@given(st.permutations(NORMALS), st.integers(1, 40))
def test_the_fit_is_the_same_in_any_order_and_batching(keys: list[str], batch: int) -> None:
    one, other = fitted(images=15).state(), fitted(keys, batch, images=15).state()

    assert one.document == other.document
    assert {name: array.tobytes() for name, array in one.arrays.items()} == {
        name: array.tobytes() for name, array in other.arrays.items()
    }


def test_an_image_is_scored_alike_in_any_batch(expert: Relations) -> None:
    keys = [f"test-{number}" for number in range(6)]
    together = expert.score(perceive({key: tray(key) for key in keys}))

    for position, key in enumerate(keys):
        alone = expert.score(perceive({key: tray(key)}))
        assert alone.scores[0] == together.scores[position]
        assert alone.maps is not None
        assert together.maps is not None
        assert np.array_equal(alone.maps[0], together.maps[position])
        assert alone.reasons[0] == together.reasons[position]


def test_scores_survive_a_round_trip(expert: Relations) -> None:
    state = expert.state()

    restored = Relations.from_state("relations", expert._config, State(load(save(dict(state.arrays))), state.document))

    before, after = (one.score(perceive(edited("swapped"))) for one in (expert, restored))
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(after.scores, before.scores)
    assert np.array_equal(after.maps, before.maps)
    assert after.reasons == before.reasons


def test_memory_is_bounded_by_the_numbers_of_images_and_of_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted(images=10).state().document["images"] == 10
    monkeypatch.setattr("uniad_ray.experts.relations._MOST_INSTANCES", 50)
    assert len(fitted().state().arrays["kinds"]) == 48


def test_images_without_parts_score_finite_and_alike() -> None:
    expert = Relations("relations", RelationsConfig(components="parts", fields=(FIELD,), map_size=8))
    nothing: dict[str, Sequence[Piece]] = {key: [] for key in NORMALS[:10]}
    expert.fit(lambda: [perceive(nothing)])

    scores = expert.score(perceive({"a": [], "b": []})).scores

    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_an_image_of_one_label_is_scored(expert: Relations) -> None:
    for label in (0, 1):
        perception = perceive({"flat": []})
        perception.fields["parts/labels"][:] = label
        perception.images[:] = 0

        assert np.isfinite(expert.score(perception).scores).all()


@pytest.mark.parametrize("keys", [[], ["only"]])
def test_fewer_than_two_images_cannot_be_fitted(keys: list[str]) -> None:
    with pytest.raises(FitError, match=r"relations: at least 2 normal images are needed"):
        fitted(keys)


def test_features_that_are_not_finite_name_the_image() -> None:
    perception = perceive({"good": tray("good"), "spoilt": tray("spoilt")})
    perception.fields[FIELD][1, 0, 2, 2] = float("nan")

    with pytest.raises(FitError, match=r"spoilt.*not finite"):
        Relations("relations", RelationsConfig(components="parts", fields=(FIELD,))).fit(lambda: [perception])


def test_a_spoilt_test_image_scores_nan_and_spares_the_rest(expert: Relations) -> None:
    perception = perceive({"a": tray("a"), "b": tray("b")})
    perception.fields[FIELD][0, 0, 0, 0] = float("inf")

    scores = expert.score(perception).scores

    assert np.isnan(scores[0])
    assert scores[1] == expert.score(perceive({"b": tray("b")})).scores[0]


def test_another_shape_at_scoring_is_an_error(expert: Relations) -> None:
    perception = perceive({"a": tray("a")})
    wide = replace(perception, fields={**perception.fields, FIELD: torch.zeros(1, 3, 12, 24)})

    with pytest.raises(BundleError, match="fitted on fields of shape"):
        expert.score(wide)


def test_before_fit_there_is_neither_score_nor_state() -> None:
    expert = Relations("relations", RelationsConfig(components="parts"))

    with pytest.raises(FitError, match="not fitted"):
        expert.score(perceive({"a": tray("a")}))
    with pytest.raises(FitError, match="not fitted"):
        expert.state()


@pytest.mark.parametrize("without", ["occupancy", "kinds", "shapes"])
def test_a_damaged_state_is_an_error(expert: Relations, without: str) -> None:
    arrays = {name: array for name, array in expert.state().arrays.items() if name != without}

    with pytest.raises(BundleError, match="fit the category again"):
        Relations.from_state("relations", expert._config, State(arrays, expert.state().document))
    with pytest.raises(BundleError, match="fit the category again"):
        Relations.from_state("relations", expert._config, State(expert.state().arrays, {}))


@pytest.mark.parametrize(
    "options", [{}, {"components": "parts", "fields": ()}, {"components": "parts", "images": 1}, {"component": "parts"}]
)
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RelationsConfig.model_validate(options)
