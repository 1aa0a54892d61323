"""Split normal images into fit and calibration images by their content alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uniad_ray.config.calibration import CalibrationConfig
from uniad_ray.scoring.calibration import Fold, cross_folds, holdout_fold
from uniad_ray.scoring.fitting.perceptions import NormalImage

_MANY_IMAGES: Final = 20
"""Number of images from which on a single one hardly changes what an extractor learns."""


@dataclass(frozen=True)
class FitSplit:
    """Use of the normal images of a category.

    Attributes:
        method: `holdout`, `cross_fit`, `validation_split`, or `altered_copies` for a single image.
        folds: Rounds of fitting and calibrating.
        final: Indices of the images to fit the stored experts on.
        learning: Indices of the images that the learned extractors of each round learn from. With few images, a single
            one matters to a segmenter, so they have not seen the images that they judge; with many, they are shared.
        training: Indices of the images to train the students of each round on. These are at most two sets, because a
            training takes minutes: with several rounds, one half of the images for the rounds that judge the other.
    """

    method: str
    folds: Sequence[Fold]
    final: Sequence[int]
    learning: Sequence[tuple[int, ...]]
    training: Sequence[tuple[int, ...]]

    @property
    def final_training(self) -> tuple[int, ...]:
        """Indices of the images to train the students of the stored experts on: the largest set of a round."""
        return max(self.training, key=len)

    @property
    def trainings(self) -> tuple[tuple[int, ...], ...]:
        """Distinct training sets of students, in order of the rounds."""
        return tuple(dict.fromkeys(self.training))

    @property
    def trial(self) -> tuple[int, ...]:
        """Numbers of the rounds that need only the first training of a student."""
        return tuple(number for number, images in enumerate(self.training) if images == self.training[0])

    @property
    def used(self) -> tuple[int, ...]:
        """Indices of all images, in order."""
        rounds = (index for fold in self.folds for index in (*fold.fit, *fold.calibrate))
        return tuple(sorted({*self.final, *rounds}))

    @property
    def is_final_a_round(self) -> bool:
        """Whether the experts of the only round are stored without another fit."""
        return len(self.folds) == 1 and tuple(self.final) == self.folds[0].fit


def split_normal_images(rows: Sequence[NormalImage], config: CalibrationConfig) -> FitSplit:
    """Split the normal images of one category into fit and calibration images.

    - A validation split of at least `min_validation` images is used for calibration.
    - Otherwise, with at least `holdout_from` distinct images, a fraction is held out by hash and the experts are fitted
      on the rest.
    - Otherwise, every part is held out once (cross-fitting), and the stored experts are fitted on all.

    Altered copies are fitted together with their image and never held out, except those of a single image.

    Args:
        rows: The images, followed by their altered copies, if any.
        config: Hold-out options.

    Raises:
        FitError: Fewer than two distinct images, copies included.
    """
    images = [row for row in rows if row.copy_of is None]
    copies: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.copy_of is not None:
            copies.setdefault(row.copy_of, []).append(index)
    if copies and len(images) == 1:
        (own,) = copies.values()
        fold = Fold((0, *own[: len(own) // 2]), tuple(own[len(own) // 2 :]))
        return FitSplit("altered_copies", [fold], fold.fit, [fold.fit], [fold.fit])

    def with_copies(indices: Sequence[int]) -> tuple[int, ...]:
        return (*indices, *(copy for index in indices for copy in copies.get(rows[index].row_key, ())))

    method, folds, final = _split_images(images, config)
    folds = [Fold(with_copies(fold.fit), fold.calibrate) for fold in folds]
    training = [fold.fit for fold in folds]
    if len(folds) > 1:
        halves = [with_copies([index for fold in folds[half::2] for index in fold.calibrate]) for half in (0, 1)]
        training = [halves[1 - number % 2] for number in range(len(folds))]
    learning = [fold.fit for fold in folds]
    if len(images) >= _MANY_IMAGES:
        learning = [with_copies(final)] * len(folds)
    return FitSplit(method, folds, with_copies(final), learning, training)


def _split_images(rows: Sequence[NormalImage], config: CalibrationConfig) -> tuple[str, list[Fold], Sequence[int]]:
    """Split images without altered copies: method, rounds, and images of the stored experts."""
    image_ids = [row.image_id for row in rows]
    validation = [index for index, row in enumerate(rows) if row.split == "validation"]
    rest = [index for index, row in enumerate(rows) if row.split != "validation"]
    if config.use_validation_split and rest and len(validation) >= config.min_validation:
        return "validation_split", [Fold(tuple(rest), tuple(validation))], rest
    if len(set(image_ids)) >= config.holdout_from:
        fold = holdout_fold(image_ids, config.holdout)
        if len(fold.fit) >= 2 and len(fold.calibrate) >= 2:
            return "holdout", [fold], fold.fit
    return "cross_fit", cross_folds(image_ids, config.folds), range(len(rows))
