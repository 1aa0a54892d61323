from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pytest

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.text.memory import TextMemory, TextMemoryConfig
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.segments import Segments
from uniad_ray.perception.text.descriptions import describe_segments

SIDE = 32
Objects = Sequence[tuple[str, int, int]]
NORMAL: Objects = (("bolt", 4, 4), ("bolt", 4, 26), ("nut", 16, 16))


def segments(objects: Objects, half: int = 2) -> Segments:
    masks = np.zeros((len(objects), SIDE, SIDE), dtype=bool)
    for mask, (_, row, column) in zip(masks, objects, strict=True):
        mask[row - half : row + half, column - half : column + half] = True
    # Equal squares are sorted by place and must be given in this order.
    return Segments.of(masks).named([name for name, _, _ in objects])


def perception(*images: Objects, first: int = 0, half: int = 2) -> Perception:
    found = [segments(objects, half) for objects in images]
    return Perception(
        row_keys=[f"{first + number:032x}" for number in range(len(images))],
        images=np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8),
        texts={"description/text": [str(describe_segments(each, 0.05)) for each in found]},
        segments={"objects/segments": found},
    )


def config(**changes: Any) -> TextMemoryConfig:
    options = {"text": "description/text", "segments": "objects/segments", "map_size": SIDE, "smoothing": 0.0}
    return TextMemoryConfig.model_validate(options | changes)


def memory(**changes: Any) -> TextMemory:
    return TextMemory("text_memory", config(**changes))


def fitted(**changes: Any) -> TextMemory:
    expert = memory(**changes)
    expert.fit(lambda: [perception(NORMAL, NORMAL), perception((("bolt", 4, 4), ("nut", 16, 16)), first=2)])
    return expert


def test_normal_image_scores_zero() -> None:
    evidence = fitted().score(perception(NORMAL))

    assert evidence.scores.tolist() == [0.0]
    assert evidence.maps is not None
    assert not evidence.maps.any()
    assert evidence.reasons == [[]]


def test_differences_are_scored_painted_and_reported() -> None:
    evidence = fitted().score(perception((("bolt", 4, 4), ("tray", 16, 16), ("bolt", 26, 26))))

    assert evidence.scores.tolist() == [3.0]
    assert evidence.reasons == [
        [
            "bolt expected at top right, found at bottom right",
            "1 of nut expected at middle centre, none found",
            "1 of tray found at middle centre, none expected",
        ]
    ]
    assert evidence.maps is not None
    painted = evidence.maps[0]
    assert painted[4, 4] == painted[26, 26] == painted[16, 16] == 1.0
    assert painted.sum() == 3 * 16


def test_missing_class_is_painted_at_its_places() -> None:
    expert = memory()
    expert.fit(lambda: [perception(NORMAL), perception((("bolt", 4, 4), ("bolt", 4, 26), ("nut", 20, 12)), first=1)])

    evidence = expert.score(perception(NORMAL[:2]))

    assert evidence.maps is not None
    rows, columns = np.nonzero(evidence.maps[0])
    assert {(16, 16), (20, 12)} <= set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert len(rows) == len(segments((("nut", 16, 16), ("nut", 20, 12))).masks().any(axis=0).nonzero()[0])


def test_size_ranges_cover_the_whole_bank() -> None:
    expert = fitted()

    assert expert.score(perception(NORMAL, half=2)).scores[0] == 0.0
    grown = expert.score(perception(NORMAL, half=3))
    # 9/4 of the largest size, for both classes.
    assert grown.scores[0] == pytest.approx(2.0)
    assert "covers" in grown.reasons[0][0]


def test_maximum_score_is_the_map_maximum() -> None:
    evidence = fitted(image_score="maximum").score(perception((("tray", 16, 16),), NORMAL))

    assert evidence.maps is not None
    assert evidence.scores.tolist() == evidence.maps.max(axis=(1, 2)).tolist() == [1.0, 0.0]


def test_score_can_be_the_gestalt_ratio() -> None:
    """The reference is difflib, over all texts of the memory."""
    image = perception((("bolt", 4, 4), ("nut", 26, 16)), NORMAL)
    normal = perception(NORMAL, NORMAL, (("bolt", 4, 4), ("nut", 16, 16))).texts["description/text"]
    ratios = [
        max(SequenceMatcher(None, text, found, autojunk=False).ratio() for text in normal)
        for found in image.texts["description/text"]
    ]

    evidence = fitted(image_score="gestalt").score(image)

    np.testing.assert_allclose(evidence.scores, 1.0 - np.array(ratios), rtol=1e-6)
    assert evidence.scores[1] == 0.0
    strict = fitted().score(image)
    assert evidence.reasons == strict.reasons
    np.testing.assert_array_equal(evidence.maps, strict.maps)


def test_relaxed_matching_sees_only_categories() -> None:
    expert = fitted(matching="relaxed")

    assert expert.score(perception((("bolt", 26, 4), ("nut", 4, 4)))).scores[0] == 0.0
    assert expert.score(perception((("bolt", 4, 4),))).scores[0] == 1.0


def test_order_of_images_has_no_effect() -> None:
    images = [perception(NORMAL), perception((("bolt", 4, 4),), first=1), perception((("nut", 4, 4),), first=2)]
    one, other = memory(), memory()
    one.fit(lambda: images)
    other.fit(lambda: reversed(images))

    assert one.state().document == other.state().document
    np.testing.assert_array_equal(one.state().arrays["occupancy"], other.state().arrays["occupancy"])


def test_bounded_memory_keeps_some_texts() -> None:
    expert = memory(images=2)
    expert.fit(lambda: [perception(NORMAL, first=number) for number in range(5)])

    assert len(expert.state().document["texts"]) == 2


def test_restored_memory_gives_the_same_evidence() -> None:
    expert = fitted()
    again = TextMemory.from_state("text_memory", config(), expert.state())
    odd = perception((("bolt", 26, 4), ("tray", 16, 16)), ())

    for one, other in zip(
        (expert.score(odd).scores, expert.score(odd).maps),
        (again.score(odd).scores, again.score(odd).maps),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert expert.score(odd).reasons == again.score(odd).reasons


def test_fit_on_images_without_objects() -> None:
    expert = memory()
    expert.fit(lambda: [perception((), ())])

    assert expert.score(perception((), NORMAL)).scores.tolist() == [0.0, 2.0]
    assert TextMemory.from_state("text_memory", config(), expert.state()).score(perception(())).scores[0] == 0.0


def test_unfitted_expert_has_no_score_or_state() -> None:
    with pytest.raises(FitError, match="not fitted"):
        memory().score(perception(NORMAL))
    with pytest.raises(FitError, match="at least one"):
        memory().fit(list)


@pytest.mark.parametrize(
    "state", [State(), State(arrays={"occupancy": np.zeros((1, 8, 8))}, document={"texts": ["a"], "classes": ["a"]})]
)
def test_foreign_state_is_refused(state: State) -> None:
    with pytest.raises(BundleError, match="no text memory"):
        TextMemory.from_state("text_memory", config(), state)
