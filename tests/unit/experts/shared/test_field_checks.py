from __future__ import annotations

import json

import pytest
import torch
from support.normal_fields import extract

from uniad_ray.errors import BundleError, FitError
from uniad_ray.experts.shared.field_checks import FieldShapes, require_finite

SQUARE = {"a": (2, 4, 4), "b": (3, 2, 2)}
WIDE = {"a": (2, 4, 6), "b": (3, 2, 2)}


def observed() -> FieldShapes:
    shapes = FieldShapes("some_expert", ["a", "b"])
    shapes.observe(extract(["first", "second"], SQUARE))
    return shapes


def test_shapes_are_learned_without_the_number_of_images() -> None:
    shapes = observed()

    assert shapes["a"] == (2, 4, 4)
    assert shapes["b"] == (3, 2, 2)
    shapes.observe(extract(["third"], SQUARE))
    shapes.check(extract(["x", "y", "z"], SQUARE))


def test_shape_change_in_the_fit_names_the_image() -> None:
    with pytest.raises(FitError, match=r"some_expert: a has shape \(2, 4, 6\) for image wide.*same size"):
        observed().observe(extract(["wide"], WIDE))


def test_parts_of_a_fit_must_have_equal_shapes() -> None:
    other = FieldShapes("some_expert", ["a", "b"])
    other.observe(extract(["wide"], WIDE))
    both = FieldShapes("some_expert", ["a", "b"])

    both.merge(observed())
    both.merge(observed())

    both.check(extract(["x"], SQUARE))
    with pytest.raises(FitError, match=r"a has shape \(2, 4, 6\) but \(2, 4, 4\) before; give all"):
        both.merge(other)


def test_shape_must_match_the_fit() -> None:
    with pytest.raises(BundleError, match=r"some_expert: fitted on fields of shape .* fit again"):
        observed().check(extract(["wide"], WIDE))


def test_other_fields_are_ignored() -> None:
    shapes = FieldShapes("some_expert", ["b"])
    shapes.observe(extract(["first"], SQUARE))

    shapes.check(extract(["wide"], WIDE))


def test_shapes_round_trip_through_json() -> None:
    restored = FieldShapes.from_document("some_expert", json.loads(json.dumps(observed().document())))

    restored.check(extract(["x"], SQUARE))
    with pytest.raises(BundleError, match="fit again"):
        restored.check(extract(["wide"], WIDE))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_feature_names_expert_and_image(bad: float) -> None:
    require_finite("some_expert", "good", torch.zeros(3))

    with pytest.raises(FitError, match="some_expert: image spoilt has features that are not finite"):
        require_finite("some_expert", "spoilt", torch.tensor([0.0, bad, 0.0]))
