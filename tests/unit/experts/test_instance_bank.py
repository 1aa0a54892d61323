from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uniad_ray.errors import BundleError
from uniad_ray.experts.instance_bank import InstanceBank
from uniad_ray.experts.instances import Instances
from uniad_ray.experts.relation_bank import Relation

IMAGES = 30


def image(seed: int, *, kinds: tuple[int, ...] = (0, 1, 1)) -> Instances:
    """Instances whose shape tells the kind, and whose appearance tells nothing; the first stands left of the rest."""
    rng = np.random.default_rng(seed)
    number = len(kinds)
    row = rng.random(number)
    column = np.where(np.array(kinds) == 0, 0.2, 0.7) + rng.normal(size=number) * 0.01
    centres = np.stack([row, column], axis=1).astype(np.float32)
    shapes = np.array([[0, 0, 0, 0], [2, 1, 1, 0], [9, 9, 9, 0]])[list(kinds)] + rng.normal(size=(number, 4)) * 0.1
    return Instances(
        centres=centres,
        boxes=np.concatenate([centres - 0.05, centres + 0.05], axis=1),
        colours=np.full((number, 3), 50.0, dtype=np.float32) + rng.normal(size=(number, 3)).astype(np.float32),
        shapes=shapes.astype(np.float32),
        appearance=[rng.normal(size=(number, 6)).astype(np.float32)],
    )


def fitted() -> InstanceBank:
    return InstanceBank.fit([image(seed) for seed in range(IMAGES)])


def strongest(bank: InstanceBank, instances: Instances) -> tuple[Relation, float]:
    found = max(bank.deviations(instances), key=lambda one: one.strengths.max())
    return found.measurement.relation, float(found.strengths.max())


def test_kinds_are_told_by_what_makes_their_counts_regular() -> None:
    bank = fitted()

    assert bank.kind_count == 2
    assert bank.document() == {"images": IMAGES, "weights": [0, 1]}
    kinds = bank.kinds.reshape(IMAGES, 3)
    assert (kinds == kinds[0]).all()
    assert kinds[0, 0] != kinds[0, 1] == kinds[0, 2]


def test_normal_images_deviate_little() -> None:
    bank = fitted()

    assert np.quantile([strongest(bank, image(seed))[1] for seed in range(100, 130)], 0.9) < 3.0


def test_a_missing_an_extra_and_a_swapped_instance_are_found() -> None:
    bank = fitted()
    single = int(bank.kinds[0])
    swapped = image(100)
    swapped.centres[:, 1] = 0.9 - swapped.centres[:, 1]

    assert strongest(bank, image(100, kinds=(1, 1)))[0] == Relation("count", single, single)
    assert strongest(bank, image(100, kinds=(0, 0, 1, 1)))[0] == Relation("count", single, single)
    relation, strength = strongest(bank, swapped)
    assert relation.attribute == "column_step"
    assert strength > 5.0


def test_an_instance_of_no_known_kind_looks_odd() -> None:
    deviations = fitted().deviations(image(100, kinds=(0, 1, 1, 2)))

    looks = {one.measurement.relation.kind: one for one in deviations if one.measurement.relation.attribute == "look"}
    worst = max(looks.values(), key=lambda one: one.strengths.max())
    assert worst.strengths.max() > 10.0
    assert worst.measurement.members[worst.strengths.argmax()].tolist() == [3]


def test_deviations_survive_a_round_trip() -> None:
    bank = fitted()

    restored = InstanceBank.restored(bank.arrays(), bank.document(), 1)

    for before, after in zip(bank.deviations(image(100)), restored.deviations(image(100)), strict=True):
        assert before.measurement.relation == after.measurement.relation
        assert np.array_equal(before.strengths, after.strengths)


def test_normal_images_without_instances_make_an_empty_bank() -> None:
    nothing = image(0, kinds=())
    bank = InstanceBank.fit([nothing, nothing])

    assert bank.kind_count == 0
    assert bank.deviations(nothing) == []
    assert bank.deviations(image(1)) == []


def test_one_image_makes_a_bank() -> None:
    bank = InstanceBank.fit([image(0)])

    assert all(np.isfinite(one.strengths).all() for one in bank.deviations(image(1)))


@pytest.mark.parametrize(
    ("without", "change"),
    [("kinds", {}), ("appearance_0", {}), ("", {"boxes": np.zeros((90, 3))}), ("", {"owners": np.zeros(5)})],
)
def test_a_damaged_state_is_an_error(without: str, change: dict[str, np.ndarray]) -> None:
    bank = fitted()
    arrays = {**{name: array for name, array in bank.arrays().items() if name != without}, **change}

    with pytest.raises(BundleError, match="no bank of instances"):
        InstanceBank.restored(arrays, bank.document(), 1)


@pytest.mark.parametrize("document", [{}, {"images": IMAGES, "weights": [1]}, {"weights": [0, 1]}])
def test_a_damaged_document_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="no bank of instances"):
        InstanceBank.restored(fitted().arrays(), document, 1)
