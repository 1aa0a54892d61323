from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from support.tiny_networks import save_clip
from support.tuning import COLOURS, TEXTS, colour_fit, coloured_tray

from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.scoring.fitting.clip.object_labels import chosen_images, label_objects, labelling_pipeline
from uniad_ray.scoring.fitting.clip.setup import find_clip
from uniad_ray.scoring.fitting.perceptions import NormalImage
from uniad_ray.training.clip.crop_classifier import CropClassifier
from uniad_ray.training.clip.labelled_crops import LabelledCrops

pytest.importorskip("transformers", reason="the networks of transformers are an extra")


class Trays:
    """Coloured trays with a copy of every third image."""

    def __init__(self, count: int) -> None:
        ids = [f"{number - (number % 3 == 2):064x}" for number in range(count)]
        self.originals: dict[str, bytes] = {}
        self.rows = [NormalImage(f"{number:032x}", image_id, "train") for number, image_id in enumerate(ids)]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in indices:
            yield index, coloured_tray(int(self.rows[index].image_id, 16))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("clip")
    save_clip(found)
    return f"file:{found}"


def labelled(config: FitConfig, count: int = 6, **options: Any) -> LabelledCrops:
    setup = find_clip(config)
    pipeline = labelling_pipeline(config, setup, device="cpu")
    classifier = CropClassifier(setup.name, setup.namer.weights, setup.namer.texts, "cpu")
    return label_objects(Trays(count), "trays", config, setup, pipeline, classifier, **options)


def colour_of(crop: np.ndarray) -> str:
    return list(COLOURS)[int(crop.astype(int).sum(axis=(0, 1)).argmax())]


def test_segment_names_label_the_crops(clip: str) -> None:
    done: list[int] = []
    found = labelled(colour_fit(clip), on_image=done.append)
    # Two of the six images are copies.
    assert len(found.crops) == 12
    assert sum(done) == 4
    assert Counter(crop.label for crop in found.crops) == {0: 4, 1: 4, 2: 4}
    assert all(colour_of(crop.pixels()) == list(COLOURS)[crop.label] for crop in found.crops)
    assert {crop.category for crop in found.crops} == {"trays"}
    assert len({crop.image_id for crop in found.crops}) == 4
    assert found.left_out == {}


def test_unknown_and_unsure_segments_are_counted(clip: str) -> None:
    found = labelled(colour_fit(clip, classes=["green", "blue"], tuning={"least_confidence": 0.5}))
    assert found.left_out == {"of no class": 4, "unsure": 4}
    assert {colour_of(crop.pixels()) for crop in found.crops} == {"blue"}
    assert {crop.label for crop in found.crops} == {1}


def test_images_and_crops_are_limited(clip: str) -> None:
    assert len(labelled(colour_fit(clip, tuning={"images": 2})).crops) == 6
    found = labelled(colour_fit(clip, tuning={"most_crops": 3}))
    assert (len(found.crops), found.left_out) == (9, {"surplus": 3})


def test_confident_clip_classes_label_the_crops(clip: str) -> None:
    def own(least_share: float) -> LabelledCrops:
        return labelled(colour_fit(clip, named=False, tuning={"least_share": least_share, "labels": None}))

    everything = own(0.0)
    assert (len(everything.crops), everything.left_out) == (12, {})
    setup = find_clip(colour_fit(clip))
    classifier = CropClassifier("namer", setup.namer.weights, TEXTS, "cpu")
    shares = classifier(classifier.pixels([crop.pixels() for crop in everything.crops])).softmax(dim=1).max(dim=1)
    assert [crop.label for crop in everything.crops] == shares.indices.tolist()
    between = float(shares.values.detach().sort().values[5:7].mean())
    sure = own(between)
    assert (len(sure.crops), sure.left_out) == (6, {"unsure": 6})
    expected = {
        crop.key for crop, share in zip(everything.crops, shares.values.tolist(), strict=True) if share > between
    }
    assert {crop.key for crop in sure.crops} == expected


def test_unnamed_segments_are_refused(clip: str) -> None:
    with pytest.raises(ConfigError, match="the segments of finder/segments have no names"):
        labelled(colour_fit(clip, named=False))
    with pytest.raises(ConfigError, match="looks/vectors is not a field of segments"):
        labelled(colour_fit(clip, tuning={"labels": "looks/vectors"}))


def test_draw_is_distinct_and_order_independent() -> None:
    rows = Trays(12).rows
    found = chosen_images(rows, 4, seed=0)
    assert found == sorted(found)
    assert len({rows[index].image_id for index in found}) == 4
    assert set(found) < set(chosen_images(rows, 5, seed=0))
    assert chosen_images(rows, 100, seed=0) == [0, 1, 3, 4, 6, 7, 9, 10]
    assert chosen_images(rows, 4, seed=1) != found
