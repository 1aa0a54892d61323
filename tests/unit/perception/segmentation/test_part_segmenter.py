from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.dataset import draw_scene
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.config.loading import load_config
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.segmentation.part_segmenter import PartSegmenter, PartSegmenterConfig
from uniad_ray.perception.segments import Segments, overlaps
from uniad_ray.scoring.factory import build_pipeline

SIDE = 64
Box = tuple[int, int, int, int]


def label_map(boxes: dict[Box, int]) -> torch.Tensor:
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    for (top, left, bottom, right), label in boxes.items():
        labels[:, top:bottom, left:right] = label
    return labels


def perception(*images: dict[Box, int], scale: str = "parts", first: int = 0) -> Perception:
    return Perception(
        [f"{first + number:032x}" for number in range(len(images))],
        np.zeros((len(images), SIDE, SIDE, 3), dtype=np.uint8),
        {
            f"{scale}/labels": torch.stack([label_map(boxes) for boxes in images]),
            f"{scale}/similarity": torch.zeros(len(images), 3, 8, 8),
        },
    )


def segmenter(**changes: Any) -> PartSegmenter:
    options = {"components": ["parts"], "side": SIDE}
    return PartSegmenter("objects", PartSegmenterConfig.model_validate(options | changes), "cpu")


def drawn(seed: int) -> dict[Box, int]:
    """Two parts of label 1 at varying positions, and up to three scraps of label 2."""
    draw = np.random.default_rng(seed)
    down, across = draw.integers(0, 8, 2).tolist()
    scraps = {(50, 4 + 12 * n, 56, 10 + 12 * n): 2 for n in range(int(draw.integers(0, 4)))}
    return {
        (4 + down, 4 + across, 14 + down, 14 + across): 1,
        (4 + across, 36 + down, 12 + across, 46 + down): 1,
    } | scraps


NORMAL = [drawn(seed) for seed in range(24)]


def fitted(**changes: Any) -> PartSegmenter:
    found = segmenter(**changes)
    found.fit(lambda: [perception(*NORMAL[:10]), perception(*NORMAL[10:], first=10)])
    return found


def segments_of(found: PartSegmenter, image: dict[Box, int]) -> Segments:
    return found.extract(perception(image))["objects/segments"][0]


def test_foreground_has_regular_counts() -> None:
    found = segments_of(fitted(), NORMAL[0])

    assert len(found) == 2
    truth = np.stack([label_map({box: 1})[0].numpy() > 0 for box, label in NORMAL[0].items() if label == 1])
    np.testing.assert_array_equal(np.sort(overlaps(found.masks(), truth).max(axis=1)), [1.0, 1.0])
    np.testing.assert_allclose(found.confidences, 1.0)


def test_touching_parts_are_cut_if_counts_get_regular() -> None:
    apart = {(10, 4, 24, 18): 1, (10, 30, 24, 44): 1}
    touching = {(10, 4, 24, 18): 1, (10, 26, 24, 40): 1, (15, 18, 19, 26): 1}
    images = [touching if number % 2 else apart for number in range(20)]

    whole, cut = segmenter(necks=[0.0]), segmenter()
    for one in (whole, cut):
        one.fit(lambda: [perception(*images)])

    assert [len(segments_of(whole, image)) for image in (apart, touching)] == [2, 1]
    assert [len(segments_of(cut, image)) for image in (apart, touching)] == [2, 2]


def test_second_scale_adds_uncovered_segments() -> None:
    def of_both(images: list[dict[Box, int]]) -> Perception:
        coarse = [{(4, 4, 14, 14): 1, (40, 40, 60, 60): 2} for _ in images]
        return perception(*images).joined(perception(*coarse, scale="coarse"))

    found = segmenter(components=["parts", "coarse"], joined_labels=1)
    fine: dict[Box, int] = {(4, 4, 14, 14): 1, (4, 30, 14, 40): 1}
    found.fit(lambda: [of_both([fine] * 10)])
    (segments,) = found.extract(of_both([fine]))["objects/segments"]

    assert len(found.state().document["choices"]) == 2
    assert len(segments) >= 2
    masks = segments.masks()
    assert (np.triu(overlaps(masks, masks), 1) == 0).all()


def test_the_order_of_images_does_not_matter() -> None:
    one, other = segmenter(), segmenter()
    batches = [perception(image, first=number) for number, image in enumerate(NORMAL)]
    one.fit(lambda: batches)
    other.fit(lambda: reversed(batches))

    assert one.state() == other.state()


@pytest.mark.parametrize("image", [{}, {(0, 0, SIDE, SIDE): 1}])
def test_empty_and_full_images_have_no_segment(image: dict[Box, int]) -> None:
    assert len(segments_of(fitted(), image)) == 0


def test_hundreds_of_objects_are_bounded() -> None:
    image = {(4 * row, 4 * column, 4 * row + 3, 4 * column + 3): 1 for row in range(16) for column in range(16)}

    assert len(segments_of(fitted(smallest_area=0.001), image)) == 32


def test_masks_of_rectangular_images_have_their_aspect_ratio() -> None:
    wide = perception(*NORMAL)
    ground = torch.zeros(len(NORMAL), 1, SIDE, SIDE // 2, dtype=torch.uint8)
    wide = wide.extended({"parts/labels": torch.cat([wide.fields["parts/labels"], ground], dim=3)})
    found = segmenter(side=96)
    found.fit(lambda: [wide])
    for segments, square in zip(
        found.extract(wide)["objects/segments"], fitted().extract(perception(*NORMAL))["objects/segments"], strict=True
    ):
        assert segments.size == (SIDE, 96)
        assert np.array_equal(segments.masks()[:, :, :SIDE], square.masks())
        assert not segments.masks()[:, :, SIDE:].any()


def test_a_restored_segmenter_finds_the_same() -> None:
    found, again = fitted(), segmenter()
    again.restore(found.state())

    one, other = segments_of(found, drawn(99)), segments_of(again, drawn(99))
    np.testing.assert_array_equal(one.packed, other.packed)
    assert again.state() == found.state()


def test_unfitted_segmenter_raises() -> None:
    with pytest.raises(FitError, match="not fitted"):
        segmenter().extract(perception({}))
    with pytest.raises(FitError, match="at least 2 normal images are needed, not 1"):
        segmenter().fit(lambda: [perception({})])


@pytest.mark.parametrize(
    "document",
    [{}, {"choices": []}, {"choices": [{"scale": 0}]}, {"choices": [{"scale": 1, "foreground": [1], "neck": 0.0}]}],
)
def test_invalid_state_is_rejected(document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="no foreground labels"):
        segmenter().restore(State(document=document))


def test_segments_of_trays_match_drawn_parts() -> None:
    config = load_config("embedded")
    pipeline = build_pipeline(config, [("parts/labels", "the test")], device="cpu")
    components = next(one for one in pipeline.stateful if one.name == "parts")
    fields = components.needs | components.provides
    scenes = [render(draw_scene(SceneConfig(seed=12), "train", "good", n), SceneRules(), 256) for n in range(30)]
    networks = [pipeline.extract([f"{n:032x}"], one.image[None], components.needs) for n, one in enumerate(scenes)]
    components.fit(lambda: networks[:24])  # type: ignore[attr-defined]
    perceptions = [pipeline.extend(one, fields) for one in networks]
    found = PartSegmenter("objects", PartSegmenterConfig(components=("parts",)), "cpu")
    found.fit(lambda: perceptions[:24])

    best = []
    for scene, one in zip(scenes[24:], perceptions[24:], strict=True):
        truth = np.stack(scene.part_masks)[:, 1::2, 1::2]
        best += overlaps(truth, found.extract(one)["objects/segments"][0].masks()).max(axis=1).tolist()

    assert np.mean(best) >= 0.7
