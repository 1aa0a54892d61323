from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.distilling import tiny_student, tiny_teachers
from support.learned import NoOptions, Trained
from support.normal_images import DrawnNormalImages

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ConfigError, FitError
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.features.student import DistilledFeatures, Student, StudentConfig, StudentNetwork
from uniad_ray.scoring.fitting.perceptions import NormalImage
from uniad_ray.training import distillation
from uniad_ray.training.distillation import STATE_NAME, Distillation, read_student, train_student
from uniad_ray.training.group import WorkerGroup
from uniad_ray.training.step_log import read_step_log

COUNT = 15


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Location:  # noqa: ARG001
    """Folder of an uninterrupted training."""
    folder = Location.parse(tmp_path_factory.mktemp("whole"))
    training().run(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(whole: Location) -> State:
    """Student of the uninterrupted training."""
    return read_student(whole / STATE_NAME)


class Chunked(DrawnNormalImages):
    """Synthetic images in chunks of four."""

    def __init__(self, count: int = COUNT, **options: Any) -> None:
        super().__init__(count, **options)
        self.rows = [
            NormalImage(row.row_key, row.image_id, row.split, f"chunk-{index // 4}")
            for index, row in enumerate(self.rows)
        ]


class InterruptionError(Exception):
    """Simulates a kill."""


def training(config: StudentConfig | None = None, images: Chunked | None = None, **options: Any) -> Distillation:
    images = images or Chunked()
    indices = options.pop("indices", range(len(images.rows)))
    return Distillation(config or tiny_student(), tiny_teachers(), images, indices, **options)


def interrupted_at(step: int, folder: Location, **options: Any) -> None:
    def kill(done: int) -> None:
        if done == step:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        training(**options).run(folder, on_step=kill)


def assert_same(one: State, other: State) -> None:
    assert one.document == other.document
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def differs(one: State, other: State) -> bool:
    return any(not np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())


def loss_of(state: State, config: StudentConfig, images: Chunked, indices: Sequence[int]) -> float:
    """Losses of a trained student, computed image by image."""
    student = Student("student", config, "cpu")
    student.restore(state)
    total = 0.0
    for index, image in images.read(indices):
        perception = Perception([str(index)], image[None])
        teacher = tiny_teachers().extract([str(index)], image[None], student.training_needs).fields
        ours = student.extract(perception)
        levels = [("pyramid/level1", "student/level1"), ("pyramid/level2", "student/level2")]
        pairs = [(teacher[a], ours[b]) for a, b in [*levels, ("logical/level3", "student/logical")]]
        total += sum(float((a - b).square().mean()) for a, b in pairs)
    return total / len(indices)


def test_training_lowers_loss_and_keeps_best_student(tmp_path: Path) -> None:
    config = tiny_student({"iterations": 60, "checkpoint_every": 10}, losses={"high": 0.0})
    images, folder = Chunked(), Location.parse(tmp_path)
    run = training(config, images)
    state = run.run(folder)
    log = read_step_log(folder)
    losses = log.column("loss").to_pylist()
    assert log.column("step").to_pylist() == list(range(1, 61))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    looks = [loss for loss in log.column("held_out_loss").to_pylist() if loss is not None]
    assert len(looks) == 6
    assert state.document["training"]["best_held_out_loss"] == min(looks)
    assert state.document["training"]["step"] == 10 * (1 + looks.index(min(looks)))
    assert loss_of(state, config, images, run._held_out) == pytest.approx(min(looks), rel=1e-4)
    assert log.column("high").null_count == 60
    sums = np.asarray(log.column("low").to_pylist()) + np.asarray(log.column("logical").to_pylist())
    np.testing.assert_allclose(losses, sums, rtol=1e-6)


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_interrupted_training_is_bit_identical(tmp_path: Path, whole: Location, undisturbed: State, step: int) -> None:
    folder = Location.parse(tmp_path)
    interrupted_at(step, folder)
    assert not (folder / STATE_NAME).exists()
    assert_same(training().run(folder), undisturbed)
    assert (folder / STATE_NAME).read_bytes() == (whole / STATE_NAME).read_bytes()
    assert read_step_log(folder).equals(read_step_log(whole))


def test_many_interruptions_do_not_change_the_result(tmp_path: Path, undisturbed: State) -> None:
    folder = Location.parse(tmp_path)
    for step in (5, 6, 9, 12):
        interrupted_at(step, folder)
    assert_same(training().run(folder), undisturbed)


def test_corrupt_checkpoint_falls_back_to_previous(tmp_path: Path, undisturbed: State) -> None:
    folder = Location.parse(tmp_path)
    interrupted_at(9, folder)
    newest = folder / "checkpoints/step-00000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4])
    steps: list[int] = []
    assert_same(training().run(folder, on_step=steps.append), undisturbed)
    assert steps[0] == 5


def test_checkpoints_of_other_configurations_are_ignored(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    interrupted_at(5, folder)
    config = tiny_student({"learning_rate": 0.02})
    assert_same(training(config).run(folder), training(config).run())


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    state = training().run(folder)
    steps: list[int] = []
    assert_same(training().run(folder, on_step=steps.append), state)
    assert steps == []
    assert_same(read_student(folder / STATE_NAME), state)
    assert [info.relative for info in folder.list(suffix=".safetensors")] == [STATE_NAME]


@pytest.mark.parametrize("room", [0, 100_000])
def test_cache_does_not_change_the_result(undisturbed: State, room: int) -> None:
    assert_same(training(tiny_student({"cache_bytes": room})).run(), undisturbed)


def test_images_are_decoded_once_if_memory_allows() -> None:
    images = Chunked()
    training(images=images).run()
    assert images.reads == COUNT


def test_order_of_indices_has_no_effect(undisturbed: State) -> None:
    assert_same(training(indices=list(range(COUNT))[::-1]).run(), undisturbed)


def test_seeds_and_images_change_the_student(undisturbed: State) -> None:
    assert differs(training(tiny_student(seed=1)).run(), undisturbed)
    assert differs(training(indices=range(COUNT - 1)).run(), undisturbed)


def test_global_random_state_is_not_used(undisturbed: State) -> None:
    torch.manual_seed(3)
    assert_same(training().run(), undisturbed)
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), drawn)


def test_digest_covers_only_what_determines_the_result() -> None:
    digest = training().digest
    assert training(indices=list(range(COUNT))[::-1]).digest == digest
    assert training(tiny_student({"cache_bytes": 1})).digest == digest
    changed = [
        training(tiny_student({"learning_rate": 0.02})),
        training(tiny_student(seed=1)),
        training(indices=range(COUNT - 1)),
        training(images=Chunked(size=(96, 64))),
        training(group=WorkerGroup(0, 2)),
    ]
    assert len({digest, *(each.digest for each in changed)}) == 6


def test_training_stops_early(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    config = tiny_student({"iterations": 40, "checkpoint_every": 1, "learning_rate": 1e-12, "patience": 3})
    state = training(config).run(folder)
    looks = read_step_log(folder).column("held_out_loss").to_pylist()
    assert len(looks) < 40
    assert min(looks) == looks[-4]
    assert state.document["training"] == {
        "steps": len(looks),
        "step": len(looks) - 3,
        "best_held_out_loss": min(looks),
    }


def test_stopped_training_does_not_resume(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path)
    config = tiny_student({"iterations": 40, "checkpoint_every": 1, "learning_rate": 1e-12, "patience": 3})
    expected = training(config).run()
    interrupted_at(expected.document["training"]["steps"], folder, config=config)
    steps: list[int] = []
    assert_same(training(config).run(folder, on_step=steps.append), expected)
    assert steps == []


def test_last_student_can_be_kept() -> None:
    config = tiny_student({"keep": "last", "held_out": 0.0, "iterations": 5, "checkpoint_every": 2})
    state = training(config).run()
    assert state.document["training"] == {"steps": 5, "step": 5, "best_held_out_loss": None}
    shorter = tiny_student({"keep": "last", "held_out": 0.0, "iterations": 4, "checkpoint_every": 2})
    assert differs(training(shorter).run(), state)


def test_corrupt_image_is_replaced_in_batches(tmp_path: Path) -> None:
    folder = Location.parse(tmp_path / "damaged")
    images = Chunked(damaged=frozenset({3, 9}))
    expected = training(images=images).run()
    interrupted_at(6, folder, images=Chunked(damaged=frozenset({3, 9})))
    assert_same(training(images=Chunked(damaged=frozenset({3, 9}))).run(folder), expected)


def test_only_undecodable_images_are_refused() -> None:
    with pytest.raises(FitError, match="none of the normal images can be decoded"):
        training(images=Chunked(damaged=frozenset(range(COUNT))))


def test_copies_of_one_image_are_refused() -> None:
    images = Chunked()
    images.rows = [NormalImage(row.row_key, "0" * 64, "train", row.chunk) for row in images.rows]
    with pytest.raises(FitError, match="1 distinct normal images"):
        training(images=images)


def test_non_finite_loss_names_the_images() -> None:
    with pytest.raises(
        FitError, match=r"the loss of the student is (nan|inf) at step \d+.*lower learning_rate"
    ) as caught:
        training(tiny_student({"learning_rate": 1e30})).run()
    named = [row.row_key for row in Chunked().rows if row.row_key in str(caught.value)]
    assert len(named) == 4


def test_batch_size_must_be_divisible_by_workers() -> None:
    with pytest.raises(ConfigError, match="batch_size 4 cannot be divided among 3 workers"):
        training(group=WorkerGroup(0, 3))


def test_precision_below_float32_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="precision bfloat16 needs a cuda device"):
        training(tiny_student({"precision": "bfloat16"}))


def test_training_without_checkpoints_gives_the_same_student(undisturbed: State) -> None:
    student = Student("student", tiny_student(), "cpu")
    state = train_student(student, tiny_teachers(), Chunked(), range(COUNT))
    assert_same(state, undisturbed)


def test_other_trained_extractors_are_refused() -> None:
    other = Trained("trained", NoOptions(), "cpu")
    with pytest.raises(ConfigError, match="extractor trained: a Trained cannot be distilled"):
        distillation.student_config(other)


@pytest.mark.parametrize("input_size", [None, 64])
def test_student_of_rectangular_images_has_the_grids_of_its_teachers(input_size: int | None) -> None:
    config = tiny_student({"iterations": 4}, input_size=input_size)
    images = Chunked(size=(64, 128))
    student = Student("student", config, "cpu")
    student.restore(training(config, images).run())
    perception = Perception(["a", "b"], np.stack([images.image(0), images.image(1)]))
    taught = tiny_teachers().extract(perception.row_keys, perception.images, student.training_needs)
    fields = student.extract(perception)
    assert fields["student/level1"].shape == taught.fields["pyramid/level1"].shape
    assert fields["student/level2"].shape == taught.fields["pyramid/level2"].shape
    assert fields["student/logical"].shape == taught.fields["logical/level3"].shape
    height, width = fields["student/logical"].shape[2:]
    assert width == 2 * height
    alone = student.extract(perception.row(1))
    assert all(torch.equal(alone[name][0], fields[name][1]) for name in fields)


def test_student_and_its_training_see_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_student({"iterations": 1, "held_out": 0.0, "keep": "last"}, input_size=64)
    images = Chunked(size=(64, 128))
    seen: list[torch.Size] = []
    forward = StudentNetwork.forward

    def watched(self: StudentNetwork, pixels: torch.Tensor) -> DistilledFeatures:
        seen.append(pixels.shape[2:])
        return forward(self, pixels)

    monkeypatch.setattr(StudentNetwork, "forward", watched)
    state = training(config, images).run()
    student = Student("student", config, "cpu")
    student.restore(state)
    student.extract(Perception(["a"], images.image(0)[None]))
    # The root of 64 x 128 is 90.5: the factor 0.707 gives 45.3 x 90.5.
    assert seen == [(32, 96), (32, 96)]
