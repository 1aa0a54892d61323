from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.config.model import FusionConfig
from uniad_ray.errors import FitError
from uniad_ray.experts.base import Evidence
from uniad_ray.scoring.calibration import ExpertCalibration, calibrate_held_out, choose_threshold
from uniad_ray.scoring.fusion import Fusion, counted_from, excess, merge_reasons, term_members

CALIBRATIONS = {"a": ExpertCalibration(mean=1.0, deviation=2.0), "b": ExpertCalibration(mean=0.0, deviation=0.5)}
GROUPED = FusionConfig(groups={"pair": ("a", "b")}, weights={"pair": 2.0})
RAW = {"a": np.array([1.0, 3.0, 5.0]), "b": np.array([0.0, 0.5, 0.25]), "c": np.array([7.0, 8.0, 9.0])}


def test_scores_and_maps_are_calibrated_and_weighted() -> None:
    maps = np.array([[[1.0, 3.0]], [[5.0, 1.0]]], dtype=np.float32)
    evidence = {
        "a": Evidence(np.array([3.0, 5.0]), maps, [[], []]),
        "b": Evidence(np.array([1.0, -1.0]), None, [[], []]),
    }
    fused = Fusion(FusionConfig(weights={"b": 0.25}), CALIBRATIONS, CALIBRATIONS).fuse(evidence)
    assert fused.calibrated["a"].tolist() == [1.0, 2.0]
    assert fused.calibrated["b"].tolist() == [2.0, -2.0]
    assert fused.scores.tolist() == [1.0 + 0.25 * 2.0, 2.0 - 0.25 * 2.0]
    assert fused.maps is not None
    np.testing.assert_allclose(fused.maps, (maps - 1.0) / 2.0)


def test_reasons_come_from_experts_above_their_normal_range() -> None:
    scores = np.zeros(2)
    evidence = {name: Evidence(scores, None, [[f"{name} first"], [f"{name} second"]]) for name in ("a", "b", "c")}
    calibrated = {"a": np.array([2.5, 1.9]), "b": np.array([9.0, -3.0]), "c": np.array([2.0, 2.1])}

    assert merge_reasons(evidence, calibrated, 0) == ["b first", "a first"]
    assert merge_reasons(evidence, calibrated, 1) == ["c second"]


def test_experts_without_maps_give_no_map() -> None:
    only_b = {"b": CALIBRATIONS["b"]}
    fused = Fusion(FusionConfig(), only_b, only_b).fuse({"b": Evidence(np.array([1.0]), None, [[]])})
    assert fused.maps is None
    assert fused.scores.tolist() == [2.0]


def test_maps_of_several_experts_add_up() -> None:
    maps = np.ones((1, 2, 2), dtype=np.float32)
    evidence = {name: Evidence(np.array([1.0]), maps, [[]]) for name in ("a", "b")}
    fused = Fusion(FusionConfig(), CALIBRATIONS, CALIBRATIONS).fuse(evidence)
    assert fused.maps is not None
    np.testing.assert_allclose(fused.maps, np.full((1, 2, 2), 0.0 + 2.0))


def test_smaller_maps_are_enlarged_to_the_largest() -> None:
    small, large = np.array([[[1.0, 3.0], [1.0, 3.0]]], dtype=np.float32), np.zeros((1, 4, 4), dtype=np.float32)
    evidence = {"a": Evidence(np.array([1.0]), small, [[]]), "b": Evidence(np.array([1.0]), large, [[]])}
    fused = Fusion(FusionConfig(), CALIBRATIONS, CALIBRATIONS).fuse(evidence)
    assert fused.maps is not None
    # Between the centres of two cells, a quarter and three quarters of their difference.
    np.testing.assert_allclose(fused.maps, np.tile([0.0, 0.25, 0.75, 1.0], (1, 4, 1)))


def test_group_scores_are_added_before_calibration() -> None:
    """Hand computation of UniAD, eq. 14 and 15."""
    fusion = Fusion.fit(GROUPED, RAW)
    sums = np.array([1.0, 3.5, 5.25])
    assert fusion.terms["pair"].mean == pytest.approx(sums.mean())
    assert fusion.terms["pair"].deviation == pytest.approx(sums.std(ddof=1))
    expected = 2.0 * (sums - sums.mean()) / sums.std(ddof=1) + (RAW["c"] - 8.0) / 1.0
    np.testing.assert_allclose(fusion.fuse_scores(RAW), expected)


def test_group_maps_are_added_before_calibration() -> None:
    fusion = Fusion.fit(GROUPED, RAW)
    maps = np.array([[[1.0, 2.0]]], dtype=np.float32)
    evidence = {name: Evidence(values[:1], maps, [[]]) for name, values in RAW.items()}
    pair, alone = fusion.terms["pair"], fusion.terms["c"]
    expected = 2.0 * (2 * maps - pair.mean) / pair.deviation + (maps - alone.mean) / alone.deviation
    np.testing.assert_allclose(fusion.fuse(evidence).maps, expected, rtol=1e-6)


def test_fused_score_is_weighted_sum_of_calibrated_scores() -> None:
    fusion = Fusion.fit(GROUPED, RAW)
    calibrated = {name: fusion.experts[name].apply(values) for name, values in RAW.items()}
    total = np.sum([fusion.expert_weights[name] * values for name, values in calibrated.items()], axis=0)
    np.testing.assert_allclose(total, fusion.fuse_scores(RAW), atol=1e-12)


def test_group_of_one_member_equals_that_member() -> None:
    assert term_members(GROUPED, ["b", "c"]) == {"pair": ("b",), "c": ("c",)}
    fusion = Fusion.fit(GROUPED, {"b": RAW["b"]})
    np.testing.assert_allclose(
        fusion.fuse_scores({"b": RAW["b"]}), 2.0 * (RAW["b"] - 0.25) / RAW["b"].std(ddof=1), atol=1e-12
    )


def test_non_finite_score_names_the_expert() -> None:
    with pytest.raises(FitError, match="expert b"):
        Fusion.fit(FusionConfig(), {"a": RAW["a"], "b": np.array([0.0, np.nan, 1.0])})


def test_excess_is_small_below_normal() -> None:
    """Hand computation: z is 2 and -1 for `a`, 4 and 0 for `b`."""
    soft_2, soft_below, soft_4 = np.log1p(np.exp([2.0, -1.0, 4.0]))
    tail_4 = 4.0 + 4.0 * np.log(soft_4 / 4.0)
    rule = FusionConfig(rule="excess", weights={"b": 0.5})
    maps = np.array([[[1.0, 5.0]], [[0.0, 9.0]]], dtype=np.float32)
    evidence = {
        "a": Evidence(np.array([5.0, -1.0]), maps, [[], []]),
        "b": Evidence(np.array([2.0, 0.0]), None, [[], []]),
    }
    fused = Fusion(rule, CALIBRATIONS, CALIBRATIONS).fuse(evidence)
    zero = np.log(2.0)
    np.testing.assert_allclose(fused.scores, [soft_2 - zero + 0.5 * (tail_4 - zero), soft_below - zero])
    assert fused.maps is not None
    soft_half = np.log1p(np.exp(-0.5))
    np.testing.assert_allclose(
        fused.maps, [[[0.0, soft_2 - zero]], [[soft_half - zero, tail_4 - zero]]], rtol=1e-6, atol=1e-7
    )


def test_expert_counts_from_a_number_of_deviations() -> None:
    """Hand computation: z is 2 and -1 for `a`, 4 and 0 for `b`."""
    rule = FusionConfig(rule="excess", excess_from=2.0)
    fused = Fusion(rule, CALIBRATIONS, CALIBRATIONS).fuse_scores(
        {"a": np.array([5.0, -1.0]), "b": np.array([2.0, 0.0])}
    )
    zero = np.log1p(np.exp(-2.0))
    first = np.log(2.0) + np.log1p(np.exp(2.0)) - 2.0 * zero
    np.testing.assert_allclose(fused, [first, np.log1p(np.exp(-3.0)) - zero])


@given(st.lists(st.floats(-30.0, 1e6), min_size=2, max_size=20, unique=True), st.sampled_from([0.0, 1.0, 2.0]))
def test_excess_is_monotonic_and_grows_slowly(scores: list[float], start: float) -> None:
    ordered = np.sort(scores)
    found = excess(ordered, start)
    assert (np.diff(found) >= 0.0).all()
    # Far below the start, differences are smaller than the rounding of the result.
    is_resolved = np.diff(np.logaddexp(0.0, ordered - start)) > 1e-15
    assert (np.diff(found)[is_resolved & (np.diff(ordered) > 1e-3)] > 0.0).all()
    assert (found <= np.maximum(ordered, 0.0) + 1e-12).all()
    assert (found >= -np.log(2.0)).all()


@given(st.lists(st.floats(0.0, 1e4), min_size=2, max_size=20), st.floats(0.0, 4.0))
def test_excess_counted_from_0_is_converted(scores: list[float], start: float) -> None:
    calibrated = np.array(scores)
    np.testing.assert_allclose(counted_from(excess(calibrated), start), excess(calibrated, start), rtol=1e-9, atol=1e-9)


def test_maps_keep_their_order_and_get_the_scale_of_the_scores() -> None:
    """With one term, a pixel with the calibrated score of the image has the score of the image."""
    maps = np.linspace(-40.0, 400.0, 500, dtype=np.float32).reshape(1, 20, 25)
    only = {"a": CALIBRATIONS["a"]}
    evidence = {"a": Evidence(maps.max(axis=(1, 2)), maps, [[]])}
    plain, counted = (
        Fusion(FusionConfig(rule="excess", excess_from=start), only, only).fuse(evidence) for start in (0.0, 2.0)
    )
    assert plain.maps is not None
    assert counted.maps is not None
    assert (np.argsort(plain.maps.ravel(), kind="stable") == np.argsort(counted.maps.ravel(), kind="stable")).all()
    assert counted.maps.max() == pytest.approx(counted.scores[0])


def test_maximum_of_fused_map_is_the_score() -> None:
    """Hand computation of TMUAD, eq. 5."""
    rule = FusionConfig(rule="maps", weights={"a": 0.3, "b": 0.7})
    maps = np.array([[[1.0, 0.0]], [[0.5, 2.0]]], dtype=np.float32)
    evidence = {
        "a": Evidence(np.array([9.0, 9.0]), maps, [[], []]),
        "b": Evidence(np.array([9.0, np.nan]), 2 * maps[::-1], [[], []]),
    }
    fused = Fusion.uncalibrated(rule, ("a", "b")).fuse(evidence)
    assert fused.maps is not None
    np.testing.assert_allclose(fused.maps, [[[0.3 + 0.7, 0.7 * 4.0]], [[0.15 + 1.4, 0.6]]], rtol=1e-6)
    np.testing.assert_allclose(fused.scores, [2.8, np.nan])


def test_maps_rule_cannot_fuse_scores() -> None:
    fusion = Fusion.uncalibrated(FusionConfig(rule="maps"), ("a",))
    with pytest.raises(FitError, match="cannot be fused without them"):
        fusion.fuse_scores({"a": RAW["a"]})
    with pytest.raises(FitError, match="no expert of the set gives maps"):
        fusion.fuse({"a": Evidence(np.array([1.0]), None, [[]])})


def test_held_out_scores_are_fused_after_each_was_calibrated_by_the_others() -> None:
    raw = {name: np.random.default_rng(number).gamma(2.0, size=9) for number, name in enumerate("abc")}
    config = FusionConfig(rule="excess", excess_from=2.0, groups={"pair": ("a", "b")}, weights={"pair": 2.0})

    fused = Fusion.fit(config, raw).fuse_held_out(raw)

    pair, single = calibrate_held_out(raw["a"] + raw["b"]), calibrate_held_out(raw["c"])
    np.testing.assert_allclose(fused, 2.0 * excess(pair, 2.0) + excess(single, 2.0))
    for index in (0, 8):
        others = {name: np.delete(values, index) for name, values in raw.items()}
        alone = {name: values[index : index + 1] for name, values in raw.items()}
        assert Fusion.fit(config, others).fuse_scores(alone)[0] == pytest.approx(fused[index])


def test_held_out_scores_give_the_asked_rate_of_new_images() -> None:
    rng = np.random.default_rng(0)
    config = FusionConfig(rule="excess", excess_from=2.0)

    def draw(count: int) -> dict[str, np.ndarray]:
        # Logical experts: nearly all normal images alike, a few far away.
        return {name: rng.standard_t(2.5, size=count) for name in "abcdef"}

    rates: dict[str, list[float]] = {"held out": [], "together": []}
    for _ in range(60):
        raw, new = draw(60), draw(2000)
        fusion = Fusion.fit(config, raw)
        for name, scores in (("held out", fusion.fuse_held_out(raw)), ("together", fusion.fuse_scores(raw))):
            threshold = choose_threshold(scores, 0.02).value
            rates[name].append(float((fusion.fuse_scores(new) > threshold).mean()))

    assert 0.015 < np.mean(rates["held out"]) < 0.03
    assert np.mean(rates["together"]) > 0.035
