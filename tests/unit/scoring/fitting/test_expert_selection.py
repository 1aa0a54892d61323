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


def test_expert_that_improves_on_base_is_selected() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(count=HIGH), "scratch": scores(base=HIGH)})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 1.0, "noise": 0.0}
    assert record.synthetic_anomalies == {"erase": 30, "scratch": 30}
    assert record.normal_images == 40
    assert record.fused_auroc["objects"] > record.base_auroc["objects"] + 0.3
    assert record.experts["count"].gain == pytest.approx(1.0 - 0.8)
    assert record.experts["count"].auroc["objects"] == 1.0
    assert record.reason("base") == "always selected"
    assert record.reason("count").startswith("adds 0.")
    assert record.reason("count").endswith(f", at least the required {record.experts['count'].asked:.3f}")
    assert record.reason("noise").endswith(f", less than the required {record.experts['noise'].asked:.3f}")


def test_selection_starts_with_the_best_base_expert() -> None:
    selection = ExpertSelectionConfig(base=("base", "fine"), surface=("grain",), arrangement=("count",))
    names = ("base", "fine", "grain", "count")
    normal = {name: RNG.normal(size=40) for name in names}
    scratches = {name: RNG.normal(size=30) for name in names} | {"fine": np.r_[HIGH[:20], RNG.normal(size=10)]}

    alone = choose_experts(CONFIG, selection, normal, {"scratch": scratches})
    helped = choose_experts(
        CONFIG, selection, normal, {"scratch": scratches | {"base": np.r_[RNG.normal(size=20), HIGH[:10]]}}
    )

    assert alone.weights == {"base": 0.0, "fine": 1.0, "grain": 0.0, "count": 0.0}
    assert alone.reason("fine") == "always selected"
    assert alone.base_auroc == alone.fused_auroc
    assert helped.weights["base"] > 0.0
    assert helped.experts["base"].gain > 0.1  # type: ignore[operator]


def missed(count: int, *detected: int) -> np.ndarray:
    """Scores of 30 anomalies: the last `count` are missed, except those with the given numbers."""
    found = np.r_[np.full(30 - count, 1e6), np.full(count, -1.0)]
    found[list(detected)] = 1e6
    return found


def test_required_gain_is_a_fraction_of_the_gap() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    # The base misses three of 30 anomalies and has an AUROC of 0.9; `grain` detects one of the three and no other.
    one = np.full(30, -1.0)
    one[29] = 1e9
    nothing = np.full(30, -1.0)
    synthetic = {"scratch": {"base": missed(3), "grain": one, "count": nothing, "noise": nothing}}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    lacking = 1.0 - record.base_auroc["surface"]
    assert lacking == pytest.approx(0.1)
    assert record.experts["grain"].asked == pytest.approx(0.1 * lacking)
    assert record.experts["grain"].gain == pytest.approx(lacking / 3, rel=0.05)
    assert record.weights["grain"] > 0.0
    stricter = SELECTION.model_copy(update={"least_gain": 0.4})
    assert choose_experts(CONFIG, stricter, flat, synthetic).weights["grain"] == 0.0


def test_tiny_gain_near_perfect_auroc_is_ignored() -> None:
    flat = {name: np.arange(1000.0) for name in ("base", "grain", "count", "noise")}
    almost = np.r_[np.full(99, 1e6), [997.5]]
    synthetic = {"scratch": {"base": almost, "grain": np.full(100, 1e6), "count": almost, "noise": almost}}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    assert 0.0 < record.experts["grain"].gain < record.experts["grain"].asked == pytest.approx(0.1 * 0.025)
    assert record.weights["grain"] == 0.0


def test_redundant_experts_are_not_selected() -> None:
    synthetic = {"erase": scores(count=HIGH, noise=HIGH), "scratch": scores(base=HIGH, grain=HIGH)}
    record = choose_experts(CONFIG, SELECTION, NORMAL, synthetic)
    assert [name for name, weight in record.weights.items() if weight] == ["base", "count"]


def test_the_first_logical_expert_must_exceed_a_given_auroc() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    nothing = np.full(30, -1.0)

    def weights_of_count(misses: int) -> float:
        synthetic = {"erase": {"base": missed(0), "grain": nothing, "count": missed(misses), "noise": nothing}}
        return choose_experts(CONFIG, SELECTION, flat, synthetic).weights["count"]

    # The base detects all, perhaps by the seams. 24 of 30 are 0.8; 0.02 more are asked, which is another one.
    assert weights_of_count(6) == 0.0
    assert weights_of_count(5) == 1.0


def test_structural_expert_does_not_displace_logical_one() -> None:
    synthetic = {"erase": scores(grain=HIGH, count=HIGH), "scratch": scores(grain=HIGH)}
    assert choose_experts(CONFIG, SELECTION, NORMAL, synthetic).weights["count"] == 1.0


def test_structural_expert_is_evaluated_on_surface_only() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(grain=HIGH), "scratch": scores(base=HIGH)})
    assert record.weights["grain"] == 0.0


def test_weights_of_each_kind_sum_to_one() -> None:
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


def test_better_of_two_equivalent_experts_is_selected() -> None:
    almost = HIGH.copy()
    almost[:6] = -9.0
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(noise=HIGH, count=almost)})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 0.0, "noise": 1.0}


def test_families_count_equally() -> None:
    """Hand computation: the base detects nothing, `count` detects all of one family and none of the other."""
    flat = {name: np.arange(4.0) for name in ("base", "grain", "count", "noise")}
    nothing = {name: np.full(2, -1.0) for name in flat}
    found = {**nothing, "count": np.full(2, 100.0)}
    synthetic = {"erase": found, "move": found, "exchange": found, "swap_cells": nothing}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    assert record.base_auroc == {"objects": 0.0, "layout": 0.0}
    assert record.experts["count"].auroc == {"objects": 1.0, "layout": 0.0}
    assert record.experts["count"].gain == pytest.approx((1.0 + 0.0) / 2 - 0.8)


def test_base_alone_without_synthetic_anomalies() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 0.0, "noise": 0.0}
    assert record.fused_auroc == {}


def test_non_finite_anomaly_score_counts_as_detected() -> None:
    broken = np.full(30, np.nan)
    assert choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(count=broken)}).weights["count"] == 1.0


def test_non_finite_normal_score_is_an_error() -> None:
    with pytest.raises(FitError, match="no finite score"):
        choose_experts(CONFIG, SELECTION, {**NORMAL, "count": np.full(40, np.nan)}, {"erase": scores()})


def test_fusion_uses_selected_weights() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"erase": scores(count=HIGH)})
    assert with_selected_weights(CONFIG, record).weights == record.weights
    assert with_selected_weights(CONFIG, None) is CONFIG
