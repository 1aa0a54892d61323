"""Which normal images are fitted and which calibrate, decided from their content alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uniad_ray.config.model import CalibrationConfig
from uniad_ray.scoring.calibration import Fold, cross_folds, holdout_fold
from uniad_ray.scoring.fitting.perceptions import NormalImage


@dataclass(frozen=True)
class FitSplit:
    """How the normal images of a category are used.

    Attributes:
        method: `holdout`, `cross_fit`, `validation_split`, or `altered_copies` of a single image.
        folds: Rounds of fitting and calibrating.
        final: Indices of the images that the stored experts are fitted on.
    """

    method: str
    folds: Sequence[Fold]
    final: Sequence[int]

    @property
    def final_training(self) -> tuple[int, ...]:
        """Indices of the images that the students of the stored experts are trained on.

        With a single round they are its own: a student takes minutes to train, and learns little from a fifth more.
        """
        return self.folds[0].fit if len(self.folds) == 1 else tuple(self.final)

    @property
    def trainings(self) -> tuple[tuple[int, ...], ...]:
        """Every set of images that students are trained on, that of the stored experts last."""
        return tuple(dict.fromkeys((*(fold.fit for fold in self.folds), self.final_training)))

    @property
    def is_final_a_round(self) -> bool:
        """Whether the experts of the only round are those that are stored."""
        return len(self.folds) == 1 and tuple(self.final) == self.folds[0].fit


def split_normal_images(rows: Sequence[NormalImage], config: CalibrationConfig) -> FitSplit:
    """Decides for the normal images of one category.

    With `min_images` or more, a share is held out by hash and the experts are fitted on the rest; with fewer than
    `refit_below` they are then fitted on all. With fewer than `min_images`, every part is held out once (cross-fitting)
    and the experts are then fitted on all. A source's own validation split is used instead of either where it is large
    enough. Altered copies are fitted together with their image and never held
    out, but for those of a single image.

    Args:
        rows: The images, and after them the altered copies of those, if there are any.
        config: How much is held out.

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
        return FitSplit("altered_copies", [fold], fold.fit)

    def with_copies(indices: Sequence[int]) -> tuple[int, ...]:
        return (*indices, *(copy for index in indices for copy in copies.get(rows[index].row_key, ())))

    split = _split_images(images, config)
    folds = [Fold(with_copies(fold.fit), fold.calibrate) for fold in split.folds]
    return FitSplit(split.method, folds, with_copies(split.final))


def _split_images(rows: Sequence[NormalImage], config: CalibrationConfig) -> FitSplit:
    """Splits images of which none is a copy."""
    image_ids = [row.image_id for row in rows]
    validation = [index for index, row in enumerate(rows) if row.split == "validation"]
    rest = [index for index, row in enumerate(rows) if row.split != "validation"]
    if config.use_validation_split and rest and len(validation) >= config.min_validation:
        return FitSplit("validation_split", [Fold(tuple(rest), tuple(validation))], rest)
    if len(set(image_ids)) >= config.min_images:
        fold = holdout_fold(image_ids, config.holdout)
        if len(fold.fit) >= 2 and len(fold.calibrate) >= 2:
            return FitSplit("holdout", [fold], range(len(rows)) if len(rows) < config.refit_below else fold.fit)
    return FitSplit("cross_fit", cross_folds(image_ids, config.folds), range(len(rows)))
