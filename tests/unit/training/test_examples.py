from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.distilling import tiny_student, tiny_teachers
from support.normal_images import DrawnNormalImages

from uniad_ray.errors import FitError
from uniad_ray.training.examples import Example, Examples


def examples(images: DrawnNormalImages, cache_bytes: int = 1 << 30) -> Examples:
    return Examples(images, tiny_teachers(), tiny_student({"cache_bytes": cache_bytes}))


def one(source: Examples, index: int) -> Example:
    (example,) = source.get([index])
    assert example is not None
    return example


def test_example_holds_image_and_teacher_features() -> None:
    images = DrawnNormalImages(3)
    example = one(examples(images), 1)
    assert (example.image == images.image(1)).all()
    fields = tiny_teachers().extract(["k"], example.image[None], tiny_teachers().provides).fields
    for found, name in zip(example.teachers.levels, ["pyramid/level1", "pyramid/level2"], strict=True):
        assert torch.equal(found, fields[name])
    assert torch.equal(example.teachers.logical, fields["logical/level3"])


def test_examples_are_ordered_and_cached() -> None:
    images = DrawnNormalImages(4)
    source = examples(images)
    found = source.get([2, 0, 2])
    assert images.reads == 2
    assert found[0] is found[2]
    assert found[1] is one(source, 0)


def test_precomputed_fields_are_not_computed() -> None:
    class Ones:
        """All teacher fields, filled with 1."""

        names = tiny_teachers().provides

        def read(self, row_keys: Sequence[str], names: frozenset[str]) -> dict[str, torch.Tensor]:
            return {name: torch.ones(len(row_keys), 2, 3, 3) for name in names}

    images = DrawnNormalImages(2)
    example = one(Examples(images, tiny_teachers(), tiny_student({}), Ones()), 1)
    assert (example.image == images.image(1)).all()
    assert {float(field.mean()) for field in (*example.teachers.levels, example.teachers.logical)} == {1.0}


def test_examples_beyond_memory_are_recomputed() -> None:
    images = DrawnNormalImages(4)
    size = one(examples(images), 0).bytes
    images.reads = 0
    source = examples(images, cache_bytes=2 * size + size // 2)
    first = source.get([0, 1, 2, 3])
    again = source.get([0, 1, 2, 3])
    assert images.reads == 6
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False, False]
    last, computed_again = first[3], again[3]
    assert last is not None
    assert computed_again is not None
    assert torch.equal(last.teachers.logical, computed_again.teachers.logical)


def test_example_size_covers_image_and_features() -> None:
    example = one(examples(DrawnNormalImages(1)), 0)
    cells = sum(level.numel() for level in example.teachers.levels) + example.teachers.logical.numel()
    assert example.bytes == 64 * 64 * 3 + 4 * cells


def test_undecodable_image_is_none_and_read_once() -> None:
    images = DrawnNormalImages(3, damaged=frozenset({1}))
    source = examples(images)
    assert [example is None for example in source.get([0, 1, 2])] == [False, True, False]
    assert source.get([1]) == [None]
    assert images.reads == 3


def test_first_readable_example() -> None:
    source = examples(DrawnNormalImages(3, damaged=frozenset({1, 2})))
    assert source.first_readable([2, 1, 0]) is one(source, 0)
    with pytest.raises(FitError, match="none of the normal images can be decoded"):
        source.first_readable([2, 1])
