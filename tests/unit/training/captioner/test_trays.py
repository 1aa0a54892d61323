from __future__ import annotations

import json

import numpy as np

from uniad_ray.archive.scenes import Colour, Part, PartKind, SceneConfig, draw_scene
from uniad_ray.perception.captions.structure import parse_answer
from uniad_ray.training.captioner.trays import CLASSES, SIDES, draw_tray, true_answer


def test_answer_lists_classes_in_order_and_cells_row_by_row() -> None:
    parts = [
        Part(PartKind.WASHER, Colour.BRASS, (2, 2)),
        Part(PartKind.BOLT, Colour.STEEL, (1, 1)),
        Part(PartKind.WASHER, Colour.BRASS, (0, 2)),
    ]
    assert true_answer(parts) == {
        "objects": [
            {"class": "bolt", "count": 1, "positions": ["middle centre"]},
            {"class": "washer", "count": 2, "positions": ["top right", "bottom right"]},
        ]
    }
    assert true_answer([]) == {"objects": []}


def test_answers_follow_the_schema_and_have_the_format_of_json_dumps() -> None:
    trays = [draw_tray(3, index) for index in range(40)]
    for tray in trays:
        parsed = parse_answer(tray.answer, CLASSES)
        assert sum(one.count for one in parsed.objects) == len(tray.scene.parts)
        assert tray.answer == json.dumps(json.loads(tray.answer))
    assert {tray.image.shape[0] for tray in trays} <= set(SIDES)
    # Most trays obey no rule, so that the number of parts says nothing.
    assert len({len(tray.scene.parts) for tray in trays}) >= 8


def test_trays_depend_on_seed_and_index_alone() -> None:
    first, again, other = draw_tray(3, 0), draw_tray(3, 0), draw_tray(4, 0)
    assert np.array_equal(first.image, again.image)
    assert first.scene != other.scene


def test_no_training_tray_is_in_a_data_set() -> None:
    drawn = {draw_tray(seed, index).scene.view for seed in range(3) for index in range(10)}
    other = {draw_scene(SceneConfig(seed=seed), "test", "good", index).view for seed in range(3) for index in range(10)}
    assert len(drawn) == len(other) == 30
    assert drawn.isdisjoint(other)
