from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tuning import clip_tuning, coloured_crops

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ConfigError, FitError
from uniad_ray.perception.base import State
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.training.clip.crop_classifier import class_loss
from uniad_ray.training.clip.folder import write_clip_folder
from uniad_ray.training.clip.labelled_crops import LabelledCrops
from uniad_ray.training.clip.tuning import STATE_NAME, read_tuned
from uniad_ray.training.group import WorkerGroup
from uniad_ray.training.step_log import read_step_log

pytest.importorskip("transformers", reason="the networks of transformers are an extra")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(one_thread: None, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Location:  # noqa: ARG001
    """Folder of an uninterrupted tuning."""
    folder = Location.parse(tmp_path_factory.mktemp("whole"))
    clip_tuning(clip).run(folder)
    return folder


class InterruptionError(Exception):
    """Simulates a kill."""


def interrupted_at(step: int, clip: Path, folder: Location) -> None:
    def kill(done: int) -> None:
        if done == step:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        clip_tuning(clip).run(folder, on_step=kill)


def assert_same(one: State, other: State) -> None:
    assert one.document == other.document
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def accuracy(state: State, when: str) -> float:
    return sum(state.document[when]) / sum(state.document["held_out"])


def test_tuning_lowers_loss_and_raises_accuracy(clip: Path, tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    tuning = clip_tuning(clip, epochs=12)
    state = tuning.run(folder)
    log = read_step_log(folder)
    losses = log.column("loss").to_pylist()
    assert log.column("step").to_pylist() == list(range(1, tuning.iterations + 1))
    assert np.mean(losses[-5:]) < 0.2 * np.mean(losses[:5])
    assert (accuracy(state, "before"), accuracy(state, "after")) == (pytest.approx(2 / 9), 1.0)
    looks = [loss for loss in log.column("held_out_loss").to_pylist() if loss is not None]
    assert len(looks) == 12
    assert state.document["loss_after"] == looks[state.document["epoch"] - 1] < state.document["loss_before"]
    assert state.document["crops"] == [9, 9, 9]
    rates = log.column("learning_rate").to_pylist()
    assert rates == sorted(rates, reverse=True)


def test_state_belongs_to_the_recorded_epoch(clip: Path) -> None:
    state = clip_tuning(clip).run()
    tuning = clip_tuning(clip)
    with torch.no_grad():
        for name, parameter in tuning._parameters:
            parameter.copy_(torch.from_numpy(state.arrays[name.removeprefix("network.")]))
    look = tuning._look()
    assert list(look.right) == state.document["after"]
    assert look.loss == pytest.approx(state.document["loss_after"], rel=1e-6)


def test_worse_tuning_keeps_the_original_clip(clip: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    base = resolve_folder(ModelFolderSource(uri=f"file:{clip}"))
    write_clip_folder(good, base, clip_tuning(clip, epochs=12).run().arrays, {})
    tuning = clip_tuning(good)
    expected = {name.removeprefix("network."): array for name, array in tuning._arrays().items()}
    trained = {crop.key for crop in tuning._members}
    crops = coloured_crops().crops
    wrong = LabelledCrops([replace(crop, label=(crop.label + (crop.key in trained)) % 3) for crop in crops])
    state = clip_tuning(good, wrong).run()
    assert state.document["epoch"] == 0
    assert state.document["after"] == state.document["before"] == [3, 3, 3]
    for name, array in expected.items():
        np.testing.assert_array_equal(state.arrays[name], array)


@pytest.mark.parametrize("step", [1, 5, 6, 13, 19])
def test_interrupted_tuning_is_bit_identical(clip: Path, whole: Location, tmp_path: Path, step: int) -> None:
    folder = Location.parse(tmp_path)
    interrupted_at(step, clip, folder)
    assert not (folder / STATE_NAME).exists()
    assert_same(clip_tuning(clip).run(folder), read_tuned(whole / STATE_NAME))
    assert (folder / STATE_NAME).read_bytes() == (whole / STATE_NAME).read_bytes()
    assert read_step_log(folder).equals(read_step_log(whole))


def test_finished_tuning_is_read_and_cleaned_up(clip: Path, whole: Location) -> None:
    steps: list[int] = []
    state = clip_tuning(clip).run(whole, on_step=steps.append)
    assert steps == []
    assert_same(state, clip_tuning(clip).run())
    assert [info.relative for info in whole.list(suffix=".safetensors")] == [STATE_NAME]


def test_digest_ignores_only_the_crop_order(clip: Path) -> None:
    crops = coloured_crops()
    digest = clip_tuning(clip).digest
    assert clip_tuning(clip, LabelledCrops.joined([crops])).digest == digest
    others = [
        clip_tuning(clip, LabelledCrops(crops.crops[1:])),
        clip_tuning(clip, LabelledCrops([replace(crops.crops[0], label=1), *crops.crops[1:]])),
        clip_tuning(clip, learning_rate=0.01),
        clip_tuning(clip, blocks=0),
        clip_tuning(clip, group=WorkerGroup(0, 2)),
    ]
    assert len({digest, *(each.digest for each in others)}) == 6


def test_crops_of_one_image_are_held_out_together(clip: Path) -> None:
    tuning = clip_tuning(clip)
    trained, held_out = ({crop.image_id for crop in part} for part in (tuning._members, tuning._held_out))
    assert len(trained) == 9
    assert len(held_out) == 3
    assert not trained & held_out


def test_mean_gradient_of_two_workers_equals_one(clip: Path) -> None:
    alone = clip_tuning(clip)
    parts = [clip_tuning(clip, group=WorkerGroup(rank, 2)) for rank in range(2)]
    batches = [[part._members[position] for position in part._order.batch(0)] for part in parts]
    assert [len(batch) for batch in batches] == [3, 3]

    def gradients(tuning: Any, crops: Any) -> list[torch.Tensor]:
        tuning._classifier.zero_grad()
        class_loss(tuning._logits(tuning._classifier, crops), tuning._labels(crops)).backward()
        return [parameter.grad.clone() for _, parameter in tuning._parameters]

    together = gradients(alone, [*batches[0], *batches[1]])
    each = [gradients(part, batch) for part, batch in zip(parts, batches, strict=True)]
    for expected, one, other in zip(together, *each, strict=True):
        torch.testing.assert_close((one + other) / 2, expected, rtol=1e-4, atol=1e-6)


def test_unusable_crops_and_options_are_refused(clip: Path) -> None:
    crops = coloured_crops()
    with pytest.raises(FitError, match=r"there are no object crops to tune CLIP on; left out: 4 unsure"):
        clip_tuning(clip, LabelledCrops([], {"unsure": 4}))
    with pytest.raises(FitError, match=r"all 12 crops to tune CLIP on have one class \('a green object'\)"):
        clip_tuning(clip, LabelledCrops([crop for crop in crops.crops if crop.label == 1]))
    with pytest.raises(FitError, match="the CLIP has 2 distinct images with objects, 1 of them held out"):
        clip_tuning(clip, coloured_crops(images=2))
    with pytest.raises(ConfigError, match="batch_size 6 cannot be divided among 4 workers"):
        clip_tuning(clip, group=WorkerGroup(0, 4))
    with pytest.raises(ConfigError, match="precision bfloat16 needs a cuda device"):
        clip_tuning(clip, precision="bfloat16")
    with pytest.raises(FitError, match=r"the (held-out )?loss of CLIP is (nan|inf)"):
        clip_tuning(clip, learning_rate=1e30).run()
