from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load, save

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.base import Expert
from uniad_ray.experts.relations.relations import Relations, RelationsConfig
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.segments import Segments

SIDE, CELL = 96, 32
SEGMENTS, VECTORS = "objects/segments", "look/vectors"
FIELDS = {"segments": SEGMENTS, "vectors": [VECTORS]}
NORMAL_IMAGES = [f"normal-{number:02d}" for number in range(40)]
# All kinds have different areas, so the segments are in the order of the kinds.
SIZES = {"block": (18, 18), "bar": (7, 24), "screw": (8, 8), "pin": (10, 6), "other": (5, 5)}
RED, BLUE = (200, 40, 40), (40, 40, 200)


@dataclass(frozen=True)
class Piece:
    kind: str
    cell: tuple[int, int]
    colour: tuple[int, int, int]


def tray(key: str) -> list[Piece]:
    """A block, a bar of the same colour that is never to its left, and two pins, each in its own cell."""
    rng = np.random.default_rng(int.from_bytes(key.encode(), "little"))
    while True:
        places = [(int(cell) // 3, int(cell) % 3) for cell in rng.permutation(9)[:4]]
        if places[1][1] >= places[0][1]:
            break
    shared, pins = ((RED, BLUE)[int(index)] for index in rng.integers(2, size=2))
    kinds = ("block", "bar", "pin", "pin")
    return [Piece(kind, cell, pins if kind == "pin" else shared) for kind, cell in zip(kinds, places, strict=True)]


def extract(trays: Mapping[str, Sequence[Piece]]) -> Perception:
    """Draws trays on a dark background; segments are the parts, and vectors separate the kinds."""
    images = np.full((len(trays), SIDE, SIDE, 3), 30, dtype=np.uint8)
    segments, vectors = [], []
    for row, (key, pieces) in enumerate(trays.items()):
        rng = np.random.default_rng(int.from_bytes(key[::-1].encode(), "little"))
        masks = np.zeros((len(pieces), SIDE, SIDE), dtype=bool)
        for mask, piece in zip(masks, pieces, strict=True):
            height, width = SIZES[piece.kind]
            top, left = (int(CELL * index + rng.integers(3, 5)) for index in piece.cell)
            mask[top : top + height, left : left + width] = True
            images[row, mask] = piece.colour
        images[row] = np.clip(images[row] + rng.normal(size=images[row].shape) * 3, 0, 255).astype(np.uint8)
        kinds = sorted((piece.kind for piece in pieces), key=lambda kind: -SIZES[kind][0] * SIZES[kind][1])
        segments.append(Segments.of(masks).named(kinds))
        looks = np.array([SIZES[kind] for kind in kinds], dtype=np.float32).reshape(-1, 2)
        vectors.append(looks + rng.normal(size=looks.shape).astype(np.float32) * 0.1)
    return Perception(list(trays), images, segments={SEGMENTS: segments}, vectors={VECTORS: vectors})


def stream_of(keys: Sequence[str], batch: int = 7) -> Iterator[Perception]:
    for start in range(0, len(keys), batch):
        yield extract({key: tray(key) for key in keys[start : start + batch]})


def config(**options: Any) -> RelationsConfig:
    return RelationsConfig.model_validate({**FIELDS, "map_size": 48, **options})


def new(**options: Any) -> Relations:
    return Relations("relations", config(**options))


def fitted(keys: Sequence[str] = NORMAL_IMAGES, batch: int = 7, **options: Any) -> Relations:
    expert = new(**options)
    expert.fit(lambda: stream_of(keys, batch))
    return expert


@pytest.fixture(scope="module")
def expert() -> Relations:
    return fitted()


@pytest.fixture(scope="module")
def usual_score(expert: Relations) -> float:
    return float(max(max(expert.score(one).scores) for one in stream_of([f"test-{number}" for number in range(20)])))


def broken(kind: str) -> Mapping[str, Sequence[Piece]]:
    """A tray that breaks one rule."""
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
        "foreign": {kind: [block, bar, pin, other, Piece("screw", empty, RED)]},
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


def test_fulfils_the_expert_interface(expert: Relations) -> None:
    evidence = expert.score(extract({key: tray(key) for key in "abc"}))

    assert isinstance(expert, Expert)
    assert expert.needs == {SEGMENTS, VECTORS}
    assert evidence.scores.shape == (3,)
    assert evidence.scores.dtype == np.float32
    assert evidence.maps is not None
    assert evidence.maps.shape == (3, 48, 48)
    assert evidence.maps.dtype == np.float32
    assert len(evidence.reasons) == 3


def test_kinds_are_segment_names(expert: Relations) -> None:
    assert set(expert.state().document["kinds"]) == {"bar", "block", "pin"}
    assert expert.state().arrays["occupancy"].shape == (3, 48, 48)


@pytest.mark.parametrize("kind", ["missing", "extra", "foreign", "wrong pair", "left right", "swapped"])
def test_broken_rule_is_found(expert: Relations, usual_score: float, kind: str) -> None:
    assert float(expert.score(extract(broken(kind))).scores[0]) > usual_score


def test_reasons_name_the_broken_rule(expert: Relations) -> None:
    kinds = ("missing", "extra", "foreign", "wrong pair")
    said = {kind: expert.score(extract(broken(kind))).reasons[0] for kind in kinds}

    assert "2 of pin expected, 1 found" in said["missing"]
    assert "1 of block expected, 2 found" in said["extra"]
    assert "0 of screw expected, 1 found" in said["foreign"]
    assert any(reason.startswith("the colours of bar and block") for reason in said["wrong pair"])
    assert all(len(reasons) <= 3 for reasons in said.values())


def test_omitted_names_compare_only_the_look() -> None:
    def with_scraps(key: str, count: int) -> list[Piece]:
        return [*tray(key), *(Piece("other", (0, 0), BLUE) for _ in range(count))]

    expert = new()
    expert.fit(lambda: [extract({key: with_scraps(key, number % 3) for number, key in enumerate(NORMAL_IMAGES)})])
    perception = extract({"usual": with_scraps("usual", 1), "odd": with_scraps("odd", 1)})
    perception.vectors[VECTORS][1][-1] = 99.0

    evidence = expert.score(perception)

    assert "other" not in expert.state().document["kinds"]
    assert evidence.reasons[0] == []
    assert evidence.scores[1] > evidence.scores[0] + 1
    (reason,) = evidence.reasons[1]
    assert reason.startswith("a piece of no known part at row ")
    assert reason.endswith("looks unlike any in the normal images")


def test_map_shows_extra_and_missing_parts() -> None:
    expert = fitted(smoothing=0.0)
    extra, missing = (expert.score(extract(broken(kind))) for kind in ("extra", "missing"))

    assert extra.maps is not None
    assert missing.maps is not None
    block = broken("extra")["extra"][0].cell
    middle = extra.maps[0][16 * block[0] + 6, 16 * block[1] + 6]
    assert middle == extra.maps[0].max() == extra.scores[0]
    # Pins occur in all cells, but not equally often.
    assert missing.maps[0].max() == pytest.approx(missing.scores[0])
    assert all(
        missing.maps[0][16 * row : 16 * row + 16, 16 * column : 16 * column + 16].max() > 0
        for row in range(3)
        for column in range(3)
    )
    assert missing.maps[0][14:16].max() == 0.0


@settings(max_examples=3, deadline=None)
@given(st.permutations(NORMAL_IMAGES), st.integers(1, 40))
def test_fit_does_not_depend_on_order_or_batches(keys: list[str], batch: int) -> None:
    one, other = fitted(images=15).state(), fitted(keys, batch, images=15).state()

    assert one.document == other.document
    assert {name: array.tobytes() for name, array in one.arrays.items()} == {
        name: array.tobytes() for name, array in other.arrays.items()
    }


def test_score_does_not_depend_on_the_batch(expert: Relations) -> None:
    keys = [f"test-{number}" for number in range(6)]
    together = expert.score(extract({key: tray(key) for key in keys}))

    for position, key in enumerate(keys):
        alone = expert.score(extract({key: tray(key)}))
        assert alone.scores[0] == together.scores[position]
        assert alone.maps is not None
        assert together.maps is not None
        assert np.array_equal(alone.maps[0], together.maps[position])
        assert alone.reasons[0] == together.reasons[position]


def test_scores_survive_a_round_trip(expert: Relations) -> None:
    state = expert.state()

    restored = Relations.from_state("relations", config(), State(load(save(dict(state.arrays))), state.document))

    before, after = (one.score(extract(broken("swapped"))) for one in (expert, restored))
    assert before.maps is not None
    assert after.maps is not None
    assert np.array_equal(after.scores, before.scores)
    assert np.array_equal(after.maps, before.maps)
    assert after.reasons == before.reasons


def test_occupancy_is_relative_to_the_most_frequent_place() -> None:
    top, low, corner = Piece("block", (0, 0), RED), Piece("block", (1, 0), RED), Piece("bar", (2, 2), BLUE)
    expert = new(map_size=24)
    expert.fit(lambda: [extract({"a": [top], "b": [top], "c": [low], "d": [top, low, corner]})])

    bar, block = expert.state().arrays["occupancy"]

    # A block is in the first cell in three images, and below it in two; a bar is in the last cell in one.
    assert (block[2, 2], block[10, 2], block[18, 2], block[2, 18]) == pytest.approx((1.0, 2 / 3, 0.0, 0.0))
    assert (bar[17, 18], bar[2, 2]) == (1.0, 0.0)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted(images=10).state().document["images"] == 10
    monkeypatch.setattr("uniad_ray.experts.relations.relations._MOST_INSTANCES", 50)
    assert len(fitted().state().document["kinds"]) == 48


def test_only_the_largest_segments_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniad_ray.experts.relations.relations._MOST_INSTANCES_OF_AN_IMAGE", 3)

    assert fitted().state().document["kinds"][:6] == ["block", "bar", "pin"] * 2


def test_images_without_parts_have_equal_finite_scores() -> None:
    expert = new(map_size=8)
    nothing: Mapping[str, Sequence[Piece]] = {key: [] for key in NORMAL_IMAGES[:10]}
    expert.fit(lambda: [extract(nothing)])

    scores = expert.score(extract({"a": [], "b": []})).scores

    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_empty_and_filled_images_are_scored(expert: Relations) -> None:
    filled = extract({"flat": [Piece("block", (0, 0), RED)]})
    filled.segments[SEGMENTS][0] = Segments.of(np.ones((1, SIDE, SIDE), dtype=bool)).named(["block"])  # type: ignore[index]
    for perception in (extract({"flat": []}), filled):
        perception.images[:] = 0

        assert np.isfinite(expert.score(perception).scores).all()


@pytest.mark.parametrize("keys", [[], ["only"]])
def test_fewer_than_two_images_cannot_be_fitted(keys: list[str]) -> None:
    with pytest.raises(FitError, match=r"relations: at least 2 normal images are needed"):
        fitted(keys)


def test_segments_need_names() -> None:
    perception = extract({key: tray(key) for key in NORMAL_IMAGES[:4]})
    unnamed = [replace(segments, names=()) for segments in perception.segments[SEGMENTS]]

    with pytest.raises(FitError, match="objects/segments has segments without names; use the field of a namer"):
        new().fit(lambda: [replace(perception, segments={SEGMENTS: unnamed})])


def test_non_finite_vectors_name_the_image() -> None:
    perception = extract({"good": tray("good"), "spoilt": tray("spoilt")})
    perception.vectors[VECTORS][1][2, 0] = float("nan")

    with pytest.raises(FitError, match=r"spoilt.*not finite"):
        new().fit(lambda: [perception])


def test_non_finite_image_scores_nan_alone(expert: Relations) -> None:
    perception = extract({"a": tray("a"), "b": tray("b")})
    perception.vectors[VECTORS][0][0, 0] = float("inf")

    scores = expert.score(perception).scores

    assert np.isnan(scores[0])
    assert scores[1] == expert.score(extract({"b": tray("b")})).scores[0]


def test_vector_length_must_match_the_fit(expert: Relations) -> None:
    perception = extract({"a": tray("a")})
    long = replace(perception, vectors={VECTORS: [np.zeros((4, 3), dtype=np.float32)]})

    with pytest.raises(BundleError, match=r"fitted on vectors of length \[2\] but the image has \[3\]"):
        expert.score(long)


def test_unfitted_expert_has_no_score_or_state() -> None:
    expert = new()

    with pytest.raises(FitError, match="not fitted"):
        expert.score(extract({"a": tray("a")}))
    with pytest.raises(FitError, match="not fitted"):
        expert.state()


@pytest.mark.parametrize("without", ["occupancy", "owners", "vectors_0"])
def test_incomplete_state_is_an_error(expert: Relations, without: str) -> None:
    arrays = {name: array for name, array in expert.state().arrays.items() if name != without}

    with pytest.raises(BundleError, match="fit the category again"):
        Relations.from_state("relations", config(), State(arrays, expert.state().document))
    with pytest.raises(BundleError, match="fit the category again"):
        Relations.from_state("relations", config(), State(expert.state().arrays, {}))


@pytest.mark.parametrize(
    "options", [{}, {**FIELDS, "vectors": ()}, {**FIELDS, "images": 1}, {**FIELDS, "components": "parts"}]
)
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RelationsConfig.model_validate(options)
