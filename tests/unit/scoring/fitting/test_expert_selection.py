from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.config.model import ExpertSelectionConfig, FusionConfig
from uniad_ray.errors import FitError
from uniad_ray.scoring.fitting.expert_selection import choose_experts
from uniad_ray.scoring.selection import with_selected_weights

SELECTION = ExpertSelectionConfig(base=("base",), surface=("grain",), arrangement=("count", "noise"))
CONFIG = FusionConfig(rule="excess", selection=SELECTION)
RNG = np.random.default_rng(0)
QUIET = RNG.normal(size=40)


def scores(**experts: np.ndarray) -> dict[str, np.ndarray]:
    return {name: experts.get(name, RNG.normal(size=30)) for name in ("base", "grain", "count", "noise")}


NORMAL = {name: RNG.normal(size=40) for name in ("base", "grain", "count", "noise")}
HIGH = np.full(30, 9.0)


def test_an_expert_takes_part_that_finds_what_the_base_does_not() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(count=HIGH), "scratch": scores(base=HIGH)})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 1.0, "noise": 0.0}
    assert record.synthetic_anomalies == {"erase": 30, "scratch": 30}
    assert record.normal_images == 40
    assert record.fused_auroc["objects"] > record.base_auroc["objects"] + 0.3
    assert record.experts["count"].gain == pytest.approx(
        record.fused_auroc["objects"] - record.base_auroc["objects"], abs=1e-9
    )
    assert record.experts["count"].auroc["objects"] == 1.0
    assert record.reason("base") == "always takes part"
    assert record.reason("count").startswith("adds 0.")
    assert record.reason("count").endswith(f", of at least {record.experts['count'].asked:.3f} asked for")
    assert record.reason("noise").endswith(f", less than {record.experts['noise'].asked:.3f} asked for")


def test_what_is_asked_for_is_a_share_of_what_is_lacking() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    # Three of 30 edits are not found by the base, which has an AUROC of 0.9; `count` finds one of them.
    found = np.r_[np.full(27, 1e6), np.full(3, -1.0)]
    nothing = np.full(30, -1.0)
    one = np.r_[np.full(27, -1.0), [1e9], np.full(2, -1.0)]
    synthetic = {"erase": {"base": found, "grain": nothing, "count": one, "noise": nothing}}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    lacking = 1.0 - record.base_auroc["objects"]
    assert record.experts["count"].asked == pytest.approx(0.2 * lacking)
    assert record.experts["count"].gain == pytest.approx(lacking / 3, rel=0.05)
    assert record.weights["count"] == 1.0
    stricter = SELECTION.model_copy(update={"least_gain": 0.4})
    assert choose_experts(CONFIG, stricter, flat, synthetic).weights["count"] == 0.0


def test_where_hardly_anything_is_lacking_a_gain_is_not_told_from_chance() -> None:
    flat = {name: np.arange(1000.0) for name in ("base", "grain", "count", "noise")}
    almost = np.r_[np.full(99, 1e6), [995.5]]
    synthetic = {"erase": {"base": almost, "grain": almost, "count": np.full(100, 1e6), "noise": almost}}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    assert 0.0 < record.experts["count"].gain < record.experts["count"].asked == pytest.approx(0.2 * 0.025)
    assert record.weights["count"] == 0.0


def test_an_expert_that_sees_nothing_new_takes_no_part() -> None:
    synthetic = {"erase": scores(base=HIGH, count=HIGH), "scratch": scores(base=HIGH)}
    record = choose_experts(CONFIG, SELECTION, NORMAL, synthetic)
    assert [name for name, weight in record.weights.items() if weight] == ["base"]


def test_seams_that_a_structural_expert_sees_do_not_make_a_logical_one_superfluous() -> None:
    synthetic = {"erase": scores(grain=HIGH, count=HIGH), "scratch": scores(grain=HIGH)}
    assert choose_experts(CONFIG, SELECTION, NORMAL, synthetic).weights["count"] == 1.0


def test_a_structural_expert_is_not_judged_by_the_arrangement() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(grain=HIGH), "scratch": scores(base=HIGH)})
    assert record.weights["grain"] == 0.0


def test_each_kind_of_experts_has_one_voice() -> None:
    surface = ExpertSelectionConfig(base=("base",), surface=("grain", "noise"), arrangement=("count",))
    nothing = np.full(30, -1.0)
    synthetic = {
        "scratch": {"base": nothing, "grain": HIGH, "noise": nothing, "count": nothing},
        "stain": {"base": nothing, "grain": nothing, "noise": HIGH, "count": nothing},
        "erase": {"base": nothing, "grain": nothing, "noise": nothing, "count": HIGH},
    }
    weights = choose_experts(CONFIG.model_copy(update={"selection": surface}), surface, NORMAL, synthetic).weights
    assert weights["count"] == 1.0
    assert min(weights.values()) > 0.0
    assert weights["base"] + weights["grain"] + weights["noise"] == pytest.approx(1.0)


def test_of_two_that_know_the_same_the_one_that_is_better_alone_takes_part() -> None:
    almost = HIGH.copy()
    almost[:6] = -9.0
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(noise=HIGH, count=almost)})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 0.0, "noise": 1.0}


def test_objects_and_layout_count_the_same_however_many_edits_they_have() -> None:
    """By hand: the base finds nothing, `count` all of one family and nothing of the other."""
    flat = {name: np.arange(4.0) for name in ("base", "grain", "count", "noise")}
    nothing = {name: np.full(2, -1.0) for name in flat}
    found = {**nothing, "count": np.full(2, 100.0)}
    synthetic = {"erase": found, "move": found, "exchange": found, "swap_cells": nothing}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    assert record.base_auroc == {"objects": 0.0, "layout": 0.0}
    assert record.fused_auroc == {"objects": 1.0, "layout": 0.0}
    assert record.experts["count"].gain == pytest.approx((1.0 + 0.0) / 2)


def test_without_edits_the_base_alone_takes_part() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 0.0, "noise": 0.0}
    assert record.fused_auroc == {}


def test_an_edit_without_a_finite_score_counts_as_found() -> None:
    broken = np.full(30, np.nan)
    assert choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(count=broken)}).weights["count"] == 1.0


def test_a_normal_image_without_a_finite_score_is_an_error() -> None:
    with pytest.raises(FitError, match="no finite score"):
        choose_experts(CONFIG, SELECTION, {**NORMAL, "count": np.full(40, np.nan)}, {"erase": scores()})


def test_the_chosen_weights_become_those_of_the_fusion() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(count=HIGH)})
    assert with_selected_weights(CONFIG, record).weights == record.weights
    assert with_selected_weights(CONFIG, None) is CONFIG
