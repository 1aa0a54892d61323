from __future__ import annotations

import pytest

from uniad_ray.config.calibration import CalibrationConfig
from uniad_ray.errors import FitError
from uniad_ray.scoring.fitting.altered_copies import copies_of
from uniad_ray.scoring.fitting.perceptions import NormalImage
from uniad_ray.scoring.fitting.splits import split_normal_images


def rows(count: int, split: str = "train") -> list[NormalImage]:
    return [NormalImage(f"{number:032x}", f"{number:064x}", split) for number in range(count)]


def test_single_image_is_calibrated_on_other_copies() -> None:
    images = rows(1)
    split = split_normal_images([*images, *copies_of(images, 6)], CalibrationConfig())
    assert split.method == "altered_copies"
    (fold,) = split.folds
    assert fold.fit == (0, 1, 2, 3) == split.final
    assert fold.calibrate == (4, 5, 6)
    assert split.trainings == ((0, 1, 2, 3),)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_copies_are_never_held_out(count: int) -> None:
    images = rows(count)
    plain = split_normal_images(images, CalibrationConfig())
    every = [*images, *copies_of(images, 2)]
    split = split_normal_images(every, CalibrationConfig())
    assert split.method == plain.method == "cross_fit"
    for fold, expected in zip(split.folds, plain.folds, strict=True):
        assert fold.calibrate == expected.calibrate
        fitted = [every[index] for index in fold.fit]
        keys = {images[index].row_key for index in expected.fit}
        assert {row.row_key for row in fitted if row.copy_of is None} == keys
        assert sorted(row.copy_of for row in fitted if row.copy_of is not None) == sorted([*keys, *keys])
    assert sorted(split.final) == list(range(3 * count))


def test_split_without_copies_is_unchanged() -> None:
    for count in (10, 500):
        split = split_normal_images(rows(count), CalibrationConfig())
        assert split.method == ("cross_fit" if count == 10 else "holdout")
        assert all({*fold.fit} & {*fold.calibrate} == set() for fold in split.folds)
    validation = [*rows(30), *(row for row in rows(60, "validation")[30:])]
    assert split_normal_images(validation, CalibrationConfig()).method == "validation_split"


def test_hold_out_needs_a_single_round() -> None:
    split = split_normal_images(rows(60), CalibrationConfig(holdout_from=60))
    assert (split.method, len(split.folds), split.is_final_a_round) == ("holdout", 1, True)
    assert tuple(split.final) == split.final_training == split.folds[0].fit
    assert split.trainings == (split.folds[0].fit,)
    assert split_normal_images(rows(59), CalibrationConfig(holdout_from=60)).method == "cross_fit"


@pytest.mark.parametrize("count", [11, 59, 499])
def test_cross_fit_judges_every_image_once_by_experts_that_have_not_seen_it(count: int) -> None:
    split = split_normal_images(rows(count), CalibrationConfig())
    assert sorted(index for fold in split.folds for index in fold.calibrate) == list(range(count))
    assert all({*fold.fit} == {*range(count)} - {*fold.calibrate} for fold in split.folds)
    assert sorted(split.final) == list(range(count))


def test_learned_extractors_have_not_seen_what_they_judge_if_images_are_few() -> None:
    few = split_normal_images(rows(19), CalibrationConfig())
    assert list(few.learning) == [fold.fit for fold in few.folds]
    many = split_normal_images(rows(20), CalibrationConfig())
    assert list(many.learning) == [tuple(many.final)] * len(many.folds)
    held_out = split_normal_images(rows(60), CalibrationConfig(holdout_from=60))
    assert list(held_out.learning) == [held_out.folds[0].fit]


@pytest.mark.parametrize("count", [2, 3, 10, 21, 60])
@pytest.mark.parametrize("copies", [0, 2])
def test_cross_fit_trains_two_students_that_judge_unseen_images(count: int, copies: int) -> None:
    images = rows(count)
    every = [*images, *copies_of(images, copies)]

    split = split_normal_images(every, CalibrationConfig())

    assert not split.is_final_a_round
    assert len(split.trainings) == 2
    assert split.final_training in split.trainings
    assert sorted(index for half in split.trainings for index in half) == list(range(len(every)))
    for fold, training in zip(split.folds, split.training, strict=True):
        judged = {every[index].row_key for index in fold.calibrate}
        assert not judged & {every[index].copy_of or every[index].row_key for index in training}


def test_one_distinct_image_is_refused() -> None:
    with pytest.raises(FitError, match="1 distinct normal images of 1"):
        split_normal_images(rows(1), CalibrationConfig())
    same = [NormalImage(f"{number:032x}", "a" * 64, "train") for number in range(4)]
    with pytest.raises(FitError, match="1 distinct normal images of 4"):
        split_normal_images([*same, *copies_of(same, 3)], CalibrationConfig())
