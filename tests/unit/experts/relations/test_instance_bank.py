from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from uniad_ray.errors import BundleError
from uniad_ray.experts.relations.bank import Relation
from uniad_ray.experts.relations.instance_bank import InstanceBank
from uniad_ray.experts.relations.instances import NO_KIND, Instances

IMAGES = 30


LOOKS = {"tray": [0.0, 0.0], "bolt": [2.0, 1.0], NO_KIND: [9.0, 9.0]}


def image(seed: int, *, kinds: tuple[str, ...] = ("tray", "bolt", "bolt")) -> Instances:
    """Instances; trays are to the left of all others."""
    rng = np.random.default_rng(seed)
    number = len(kinds)
    row = rng.random(number)
    column = np.where(np.array(kinds) == "tray", 0.2, 0.7) + rng.normal(size=number) * 0.01
    centres = np.stack([row, column], axis=1).astype(np.float32)
    vectors = np.array([LOOKS[kind] for kind in kinds]).reshape(-1, 2) + rng.normal(size=(number, 2)) * 0.1
    return Instances(
        kinds=kinds,
        centres=centres,
        boxes=np.concatenate([centres - 0.05, centres + 0.05], axis=1),
        colours=np.full((number, 3), 50.0, dtype=np.float32) + rng.normal(size=(number, 3)).astype(np.float32),
        directions=rng.normal(scale=0.01, size=(number, 8)).astype(np.float32),
        vectors=[vectors.astype(np.float32), np.ones((number, 3), dtype=np.float32)],
    )


def _joined(one: Instances, other: Instances) -> Instances:
    names = ("centres", "boxes", "colours", "directions")
    columns = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in names}
    vectors = [np.concatenate(pair) for pair in zip(one.vectors, other.vectors, strict=True)]
    return Instances(kinds=one.kinds + other.kinds, **columns, vectors=vectors)


def fitted() -> InstanceBank:
    return InstanceBank.fit([image(seed) for seed in range(IMAGES)])


def strongest(bank: InstanceBank, instances: Instances) -> tuple[Relation, float]:
    found = max(bank.deviations(instances), key=lambda one: one.strengths.max())
    return found.measurement.relation, float(found.strengths.max())


def test_kinds_are_sorted_names() -> None:
    assert fitted().kinds == ("bolt", "tray")
    assert InstanceBank.fit([image(0, kinds=(NO_KIND,))]).kinds == ()


def test_look_scales_fields_to_equal_spread() -> None:
    normal = image(0, kinds=("tray", "tray"))
    apart = [np.array([[0.0], [6.0]], dtype=np.float32), np.array([[0.0], [0.2]], dtype=np.float32)]
    bank = InstanceBank.fit([replace(normal, vectors=apart)])

    found = bank.deviations(replace(normal, vectors=[apart[0] + 3, apart[1] + 0.2]))

    (look,) = [one for one in found if one.measurement.relation.attribute == "look"]
    # The spreads are 3 and 0.1, so the steps are 1 and 2.
    assert look.measurement.values == pytest.approx(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert look.nearest == pytest.approx(np.array([[2.0, 2.0], [2.0, 2.0]]))


def test_normal_images_deviate_little() -> None:
    bank = fitted()

    assert np.quantile([strongest(bank, image(seed))[1] for seed in range(100, 130)], 0.9) < 3.0


def test_missing_extra_and_swapped_instances_are_found() -> None:
    bank = fitted()
    swapped = image(100)
    swapped.centres[:, 1] = 0.9 - swapped.centres[:, 1]

    assert strongest(bank, image(100, kinds=("bolt", "bolt")))[0] == Relation("count", "tray", "tray")
    assert strongest(bank, image(100, kinds=("tray", "tray", "bolt", "bolt")))[0] == Relation("count", "tray", "tray")
    relation, strength = strongest(bank, swapped)
    assert relation.attribute == "column_step"
    assert strength > 5.0


def test_unusual_look_is_found() -> None:
    odd = image(100)
    odd.vectors[0][2] = LOOKS[NO_KIND]

    deviations = fitted().deviations(odd)

    looks = [one for one in deviations if one.measurement.relation.attribute == "look"]
    worst = max(looks, key=lambda one: one.strengths.max())
    assert worst.strengths.max() > 10.0
    assert worst.measurement.members[worst.strengths.argmax()].tolist() == [2]


def test_unknown_kind_is_one_too_many() -> None:
    stranger = replace(image(100, kinds=("tray", "bolt", "bolt", NO_KIND)), kinds=("tray", "bolt", "bolt", "nut"))

    relation, strength = strongest(fitted(), stranger)

    assert relation == Relation("count", "nut", "nut")
    assert strength == pytest.approx(1 / 0.1)


def test_grid_uses_only_instances_of_a_kind() -> None:
    scattered = image(7, kinds=(NO_KIND,) * 40)
    scattered.boxes[:] = np.linspace(0.0, 0.95, 40)[:, None] + [0.0, 0.0, 0.05, 0.05]
    images = [image(seed) for seed in range(IMAGES)]

    with_scattered = [_joined(one, scattered) for one in images]

    assert len(InstanceBank.fit(images).grid) > 1
    assert len(InstanceBank.fit(with_scattered).grid) == len(InstanceBank.fit(images).grid)


def test_deviations_survive_a_round_trip() -> None:
    bank = fitted()

    restored = InstanceBank.restored(bank.arrays(), bank.document(), 2)

    for before, after in zip(bank.deviations(image(100)), restored.deviations(image(100)), strict=True):
        assert before.measurement.relation == after.measurement.relation
        assert np.array_equal(before.strengths, after.strengths)


def test_images_without_instances_give_an_empty_bank() -> None:
    nothing = image(0, kinds=())
    bank = InstanceBank.fit([nothing, nothing])

    assert bank.kinds == ()
    assert bank.deviations(nothing) == []
    # The bank only knows that there should be no instances.
    assert {one.measurement.relation.attribute for one in bank.deviations(image(1))} == {"count"}


def test_one_image_makes_a_bank() -> None:
    bank = InstanceBank.fit([image(0)])

    assert all(np.isfinite(one.strengths).all() for one in bank.deviations(image(1)))


@pytest.mark.parametrize(
    ("without", "change"),
    [
        ("owners", {}),
        ("vectors_0", {}),
        ("vectors_1", {}),
        ("", {"boxes": np.zeros((90, 3))}),
        ("", {"owners": np.zeros(5)}),
    ],
)
def test_incomplete_state_is_an_error(without: str, change: dict[str, np.ndarray]) -> None:
    bank = fitted()
    arrays = {**{name: array for name, array in bank.arrays().items() if name != without}, **change}

    with pytest.raises(BundleError, match="no bank of instances"):
        InstanceBank.restored(arrays, bank.document(), 2)


@pytest.mark.parametrize(
    "document", [{}, {"images": IMAGES, "kinds": ["bolt"]}, {"kinds": ["bolt"] * 90}, {"images": IMAGES, "kinds": 90}]
)
def test_invalid_document_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="no bank of instances"):
        InstanceBank.restored(fitted().arrays(), document, 2)
