from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.experts.relations.bank import Attribute, Measurement, Relation, RelationBank, measure
from uniad_ray.experts.relations.instances import NO_KIND, Instances
from uniad_ray.experts.relations.part_grid import PartGrid

BOXES = [[0.1, 0.1, 0.2, 0.2], [0.5, 0.1, 0.6, 0.4], [0.8, 0.7, 0.9, 0.8]]
NO_GRID = PartGrid(np.empty(0), np.empty(0))
DIRECTIONS = [[1.0] * 8, [0.0, 1.0] * 4, [0.5, 0.0] * 4]
COLOURS = [[50.0, 1.0, 2.0], [60.0, 5.0, 9.0], [40.0, 1.0, 1.0]]


def instances(kinds: tuple[str, ...]) -> Instances:
    boxes = np.array(BOXES, dtype=np.float32)
    return Instances(
        kinds=kinds,
        centres=(boxes[:, :2] + boxes[:, 2:]) / 2,
        boxes=boxes,
        colours=np.array(COLOURS, dtype=np.float32),
        directions=np.array(DIRECTIONS, dtype=np.float32),
        vectors=(),
    )


def numbers(kinds: tuple[str, ...]) -> dict[str, int]:
    return {kind: kinds.count(kind) for kind in ("bolt", "nut")}


def measured(*kinds: str, grid: PartGrid = NO_GRID) -> dict[Relation, Measurement]:
    looks = np.arange(6, dtype=np.float64).reshape(3, 2)
    return {one.relation: one for one in measure(instances(kinds), looks, numbers(kinds), grid)}


def of(attribute: Attribute, *values: float, kind: str = "bolt") -> list[Measurement]:
    members = np.zeros((len(values), 1), dtype=np.int64)
    return [Measurement(Relation(attribute, kind, kind), np.array(values, dtype=np.float32)[:, None], members)]


def strength(normal: list[float], value: float, attribute: Attribute = "row") -> float:
    bank = RelationBank([of(attribute, one) for one in normal])
    return float(bank.deviations(of(attribute, value))[0].strengths[0])


def test_single_instance_relations_are_its_values() -> None:
    found = measured("bolt", "nut", "nut")

    assert found[Relation("count", "bolt", "bolt")].values.tolist() == [[1.0]]
    assert found[Relation("count", "nut", "nut")].values.tolist() == [[2.0]]
    assert found[Relation("count", "nut", "nut")].members.tolist() == [[1, 2]]
    np.testing.assert_allclose(found[Relation("place", "nut", "nut")].values, [[0.55, 0.25], [0.85, 0.75]])
    np.testing.assert_allclose(found[Relation("row", "bolt", "bolt")].values, [[0.15]])
    np.testing.assert_allclose(found[Relation("column", "nut", "nut")].values, [[0.25], [0.75]])
    assert found[Relation("colour", "bolt", "bolt")].values.tolist() == [COLOURS[0]]
    assert found[Relation("direction", "nut", "nut")].values.tolist() == DIRECTIONS[1:]
    assert found[Relation("look", "nut", "nut")].values.tolist() == [[2.0, 3.0], [4.0, 5.0]]


def test_relations_go_from_first_to_second_kind() -> None:
    found = measured("bolt", "nut", "nut")

    np.testing.assert_allclose(found[Relation("row_step", "bolt", "nut")].values, [[0.4], [0.7]], atol=1e-6)
    np.testing.assert_allclose(found[Relation("column_step", "bolt", "nut")].values, [[0.1], [0.6]], atol=1e-6)
    np.testing.assert_allclose(found[Relation("gap", "bolt", "nut")].values, [[0.3], [np.hypot(0.6, 0.5)]], atol=1e-6)
    assert found[Relation("colour_pair", "bolt", "nut")].values[1].tolist() == [*COLOURS[0], *COLOURS[2]]
    assert Relation("direction_pair", "bolt", "nut") not in found
    assert found[Relation("gap", "bolt", "nut")].members.tolist() == [[0, 1], [0, 2]]
    assert Relation("gap", "nut", "bolt") not in found


def test_two_of_one_kind_have_no_order() -> None:
    found = measured("nut", "bolt", "nut")

    np.testing.assert_allclose(found[Relation("row_step", "nut", "nut")].values, [[0.7]], atol=1e-6)
    assert found[Relation("colour_pair", "nut", "nut")].values.tolist() == [[10.0, 0.0, 1.0]]
    np.testing.assert_allclose(found[Relation("direction_pair", "nut", "nut")].values, [[np.sqrt(4 * (0.5**2 + 1))]])
    # From the bolt below up to the first nut.
    np.testing.assert_allclose(found[Relation("row_step", "bolt", "nut")].values[0], [-0.4], atol=1e-6)


@pytest.mark.parametrize(("count", "has_pairs"), [(6, True), (7, False)])
def test_directions_of_many_instances_are_not_compared(count: int, has_pairs: bool) -> None:
    boxes = np.tile(np.array(BOXES[:1], dtype=np.float32), (count, 1))
    many = Instances(("nut",) * count, boxes[:, :2], boxes, boxes[:, :3], np.zeros((count, 8), dtype=np.float32), ())

    found = {one.relation for one in measure(many, np.zeros((count, 1)), {"nut": count}, NO_GRID)}

    assert (Relation("direction_pair", "nut", "nut") in found) == has_pairs


def test_numerous_kinds_are_only_counted_and_looked_at() -> None:
    grid = PartGrid(np.array([0.3]), np.array([0.2]))
    counts = {"bolt": 1, "nut": 40}

    measurements = measure(instances(("bolt", "nut", "nut")), np.zeros((3, 2)), counts, grid, {"nut"})

    found = {one.relation: one for one in measurements}
    of_nuts = {relation.attribute for relation in found if "nut" in (relation.kind, relation.other)}
    assert of_nuts == {"count", "look", "colour"}
    assert found[Relation("count", "nut", "nut")].values.tolist() == [[40.0]]
    assert Relation("place", "bolt", "bolt") in found


def test_instance_without_kind_has_only_a_look() -> None:
    found = measured(NO_KIND, NO_KIND, NO_KIND)

    assert set(found) == {
        Relation("look", NO_KIND, NO_KIND),
        Relation("count", "bolt", "bolt"),
        Relation("count", "nut", "nut"),
    }
    assert found[Relation("count", "bolt", "bolt")].values.tolist() == [[0.0]]
    assert found[Relation("look", NO_KIND, NO_KIND)].members.tolist() == [[0], [1], [2]]


def test_grid_adds_cell_counts() -> None:
    grid = PartGrid(np.array([0.3]), np.array([0.2]))

    found = measured("bolt", "nut", "nut", grid=grid)

    counts = [float(found[Relation("cell_count", "bolt", "bolt", cell)].values[0, 0]) for cell in range(4)]
    assert counts == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-6)
    # A third of the second instance is to the left of the line.
    np.testing.assert_allclose(found[Relation("cell_count", "nut", "nut", 2)].values, [[1 / 3]], rtol=1e-6)
    np.testing.assert_allclose(found[Relation("cell_count", "nut", "nut", 3)].values, [[5 / 3]], rtol=1e-6)
    assert found[Relation("cell_count", "nut", "nut", 3)].members.tolist() == [[1, 2]]
    assert found[Relation("cell_count", "nut", "nut", 2)].members.tolist() == [[]]


def test_cell_counts_find_parts_in_wrong_cells() -> None:
    grid = PartGrid(np.empty(0), np.array([0.5]))
    places = np.random.default_rng(0).random((60, 2)) * [0.9, 0.3]

    def one_at(row: float, column: float) -> list[Measurement]:
        box = np.array([[row, column, row + 0.1, column + 0.1]], dtype=np.float32)
        alone = Instances(
            ("bolt",), box[:, :2] + 0.05, box, np.zeros((1, 3), np.float32), np.zeros((1, 8), np.float32), ()
        )
        return measure(alone, np.zeros((1, 2)), {"bolt": 1}, grid)

    bank = RelationBank([one_at(*place) for place in places.tolist()])

    found = {one.measurement.relation: float(one.strengths[0]) for one in bank.deviations(one_at(0.4, 0.6))}
    usual = np.sqrt(1 / 61)
    assert found[Relation("cell_count", "bolt", "bolt", 0)] == pytest.approx(1 / (usual + 0.1))
    assert found[Relation("cell_count", "bolt", "bolt", 1)] == pytest.approx(1 / (usual + 0.1))
    assert found[Relation("count", "bolt", "bolt")] == 0.0


def test_pattern_of_two_images_is_no_rule() -> None:
    often = [0.1] * 20 + [0.5] * 20
    rule = strength([*often, 0.9, 0.9, 0.9], 0.7)

    assert strength([*often, 0.9, 0.9], 0.7) < 0.6 * rule


def test_a_relation_that_a_normal_image_broke_counts_less() -> None:
    kept = [0.1 + 0.001 * number for number in range(40)]

    assert strength([*kept, 0.6], 0.9) < 0.3 * strength(kept, 0.9)


def test_strength_equals_a_plain_reference() -> None:
    normal = [0.1, 0.12, 0.5, 0.53, 0.9]
    second_nearest = np.array([0.4, 0.38, 0.38, 0.37, 0.4])
    usual = np.sqrt((np.square(second_nearest).sum() + np.var(normal)) / 6)
    longest = 0.37

    assert strength(normal, 0.7) == pytest.approx(0.17 / (usual + longest + 0.02), rel=1e-4)
    assert strength(normal, 0.5) == pytest.approx(0.0, abs=1e-6)


def test_same_image_does_not_make_a_value_usual() -> None:
    pairs = [of("row", place, place + 0.001) for place in (0.1, 0.4, 0.9)]
    singles = [of("row", place) for place in (0.1, 0.4, 0.9)]

    together, alone = (RelationBank(one).deviations(of("row", 0.6))[0].strengths[0] for one in (pairs, singles))

    assert together == pytest.approx(alone, rel=0.1)


def test_rule_seen_more_often_counts_more() -> None:
    assert strength([0.3, 0.7] * 50, 0.5) > 1.5 * strength([0.3, 0.7] * 3, 0.5)


def test_values_without_a_rule_do_not_count() -> None:
    anywhere = np.random.default_rng(0).random(21).tolist()

    assert strength(anywhere[:20], anywhere[20]) < 1.0


def test_counts_are_divided_by_their_deviation() -> None:
    assert strength([2.0] * 30, 1.0, "count") == pytest.approx(10.0)
    assert strength([1.0, 3.0] * 15, 4.0, "count") == pytest.approx(1 / 1.1)


def test_count_of_a_single_image_is_not_normal() -> None:
    counts = [1.0] * 63 + [0.0]

    assert strength(counts, 0.0, "count") == pytest.approx(1 / (np.std(counts) + 0.1))


def test_normal_count_of_unknown_kind_is_zero() -> None:
    (found,) = RelationBank([of("count", 1.0)]).deviations(of("count", 2.0, kind="nut"))

    assert found.nearest.tolist() == [[0.0]]
    assert found.strengths == pytest.approx([2 / 0.1])


def test_unknown_relations_are_omitted() -> None:
    assert RelationBank([of("row", 0.5)]).deviations(of("row", 0.5, kind="nut")) == []


def test_many_values_are_thinned_evenly() -> None:
    values = np.linspace(0.0, 1.0, 5000)
    bank = RelationBank([of("row", *map(float, part)) for part in values.reshape(50, 100)])

    found = bank.deviations(of("row", 0.0, 0.4321, 1.0))[0]

    np.testing.assert_allclose(found.nearest[:, 0], [0.0, 0.4321, 1.0], atol=0.001)
