from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.config.expert_selection import ExpertGroupConfig, ExpertSelectionConfig
from uniad_ray.config.model import FusionConfig
from uniad_ray.errors import FitError
from uniad_ray.scoring.fitting.selection.expert_selection import choose_experts
from uniad_ray.scoring.selection import with_selected_weights

SELECTION = ExpertSelectionConfig(
    surface=ExpertGroupConfig(base=("base",), candidates=("grain",)),
    arrangement=ExpertGroupConfig(candidates=("count", "noise")),
)
CONFIG = FusionConfig(rule="excess", selection=SELECTION)
RNG = np.random.default_rng(0)
QUIET = RNG.normal(size=40)


def scores(**experts: np.ndarray) -> dict[str, np.ndarray]:
    return {name: experts.get(name, RNG.normal(size=30)) for name in ("base", "grain", "count", "noise")}


NORMAL = {name: RNG.normal(size=40) for name in ("base", "grain", "count", "noise")}
HIGH = np.full(30, 9.0)


def test_expert_that_improves_on_base_is_selected() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"missing": scores(count=HIGH), "scratch": scores(base=HIGH)})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 1.0, "noise": 0.0}
    assert record.synthetic_anomalies == {"missing": 30, "scratch": 30}
    assert record.normal_images == 40
    assert record.fused_auroc["amount"] > record.base_auroc["amount"] + 0.3
    assert record.experts["count"].trial.gain == pytest.approx(1.0 - 0.5)
    assert record.experts["count"].auroc["amount"] == 1.0
    assert record.reason("base") == "always selected"
    assert record.reason("count").startswith("adds 0.")
    assert record.reason("count").endswith(f", at least the required {record.experts['count'].trial.asked:.3f}")
    assert record.reason("noise").endswith(f", less than the required {record.experts['noise'].trial.asked:.3f}")


def test_anomaly_without_a_text_counts_for_no_expert() -> None:
    found = scores(count=HIGH)
    without = {name: values[1:] for name, values in found.items()}
    found["count"] = np.r_[np.nan, HIGH[1:]]
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"missing": found})
    assert record == choose_experts(CONFIG, SELECTION, NORMAL, {"missing": without})
    assert record.synthetic_anomalies == {"missing": 29}


def test_all_experts_of_the_base_are_selected() -> None:
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base", "grain")),
        arrangement=ExpertGroupConfig(base=("count",), candidates=("noise",)),
    )

    record = choose_experts(CONFIG, selection, NORMAL, {"missing": scores(count=HIGH), "scratch": scores()})

    assert record.weights == {"base": 0.5, "grain": 0.5, "count": 1.0, "noise": 0.0}
    assert record.reason("count") == "always selected"
    assert record.base_auroc == record.fused_auroc


def test_a_candidate_is_compared_with_the_base_of_its_kind() -> None:
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base",)),
        arrangement=ExpertGroupConfig(base=("count",), candidates=("grain", "noise")),
    )
    erased = scores(count=np.r_[HIGH[:20], np.full(10, -9.0)], grain=np.r_[np.full(20, -9.0), HIGH[:10]], noise=HIGH)

    record = choose_experts(CONFIG, selection, NORMAL, {"missing": erased})

    assert record.weights["base"] == 1.0
    # `count` detects 20 of 30, which is an AUROC of 2/3; `noise` detects all.
    assert record.weights["count"] == pytest.approx(0.25)
    assert record.weights["noise"] == pytest.approx(0.75)
    assert record.weights["grain"] == 0.0


def test_logical_experts_near_chance_have_a_small_weight() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base", "grain")), arrangement=ExpertGroupConfig(base=("count", "noise"))
    )

    def weights(detected: int) -> dict[str, float]:
        found = np.r_[np.full(detected, 1e6), np.full(30 - detected, -1.0)]
        missing = {"base": np.zeros(30), "grain": np.zeros(30), "count": found, "noise": found}
        return choose_experts(CONFIG, selection, flat, {"missing": missing, "scratch": missing}).weights

    # 21 of 30 are an AUROC of 0.7, which is 0.8 of the way from chance to 0.75.
    assert weights(30) == {"base": 0.5, "grain": 0.5, "count": 0.5, "noise": 0.5}
    assert weights(21) == pytest.approx({"base": 0.5, "grain": 0.5, "count": 0.4, "noise": 0.4})
    # Below 0.65, the change breaks no rule that an expert knows.
    assert weights(18) == {"base": 0.5, "grain": 0.5, "count": 0.0, "noise": 0.0}
    assert weights(10) == {"base": 0.5, "grain": 0.5, "count": 0.0, "noise": 0.0}


def test_weights_are_proportional_to_the_auroc_above_chance() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base", "grain", "noise")), arrangement=ExpertGroupConfig(base=("count",))
    )
    # AUROCs of 1, 0.75 and 0: an expert below chance keeps a little weight.
    half = np.r_[np.full(15, 1e6), np.full(15, 49.5)]
    scratches = {"base": np.full(30, 1e6), "grain": half, "noise": np.full(30, -1.0), "count": half}

    weights = choose_experts(CONFIG, selection, flat, {"scratch": scratches}).weights

    assert weights["base"] == pytest.approx(0.5 / 0.77)
    assert weights["grain"] == pytest.approx(0.25 / 0.77)
    assert weights["noise"] == pytest.approx(0.02 / 0.77)


def test_an_expert_of_the_base_without_weight_is_explained() -> None:
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base", "grain", "noise")), arrangement=ExpertGroupConfig(base=("count",))
    )

    record = choose_experts(CONFIG, selection, NORMAL, {"missing": scores(count=np.full(30, -9.0))})

    assert record.reason("count") == "no better than chance on synthetic anomalies"


def missed(count: int, *detected: int) -> np.ndarray:
    """Scores of 30 anomalies: the last `count` are missed, except those with the given numbers."""
    found = np.r_[np.full(30 - count, 1e6), np.full(count, -1.0)]
    found[list(detected)] = 1e6
    return found


def with_some_of_the_missed(found: int) -> dict[str, np.ndarray]:
    """Scores of 30 anomalies: the base misses six and has an AUROC of 0.8; `grain` detects some of these alone."""
    some = np.full(30, -1.0)
    some[24 : 24 + found] = 1e9
    nothing = np.full(30, -1.0)
    return {"base": missed(6), "grain": some, "count": nothing, "noise": nothing}


def test_required_gain_is_a_fraction_of_the_gap() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    synthetic = {"scratch": with_some_of_the_missed(4)}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    trial = record.experts["grain"].trial
    assert trial is not None
    assert trial.asked == pytest.approx(0.2 * 0.2)
    assert trial.gain == pytest.approx(0.2 * 4 / 6, rel=0.05)
    assert record.weights["grain"] > 0.0
    stricter = SELECTION.model_copy(update={"least_gain": 0.8})
    assert choose_experts(CONFIG, stricter, flat, synthetic).weights["grain"] == 0.0


def test_a_gain_that_may_be_chance_is_ignored() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    eager = SELECTION.model_copy(update={"least_gain": 0.01})
    record = choose_experts(CONFIG, eager, flat, {"scratch": with_some_of_the_missed(1)})
    trial = record.experts["grain"].trial
    assert trial is not None
    assert trial.gain > trial.asked
    assert trial.lowest == 0.0
    assert record.weights["grain"] == 0.0
    assert record.reason("grain").endswith("which may be chance")


def test_tiny_gain_near_perfect_auroc_is_ignored() -> None:
    flat = {name: np.arange(1000.0) for name in ("base", "grain", "count", "noise")}
    almost = np.r_[np.full(99, 1e6), [997.5]]
    synthetic = {"scratch": {"base": almost, "grain": np.full(100, 1e6), "count": almost, "noise": almost}}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    assert 0.0 < record.experts["grain"].trial.gain < record.experts["grain"].trial.asked == pytest.approx(0.2 * 0.025)
    assert record.weights["grain"] == 0.0


def test_redundant_experts_are_not_selected() -> None:
    synthetic = {"missing": scores(count=HIGH, noise=HIGH), "scratch": scores(base=HIGH, grain=HIGH)}
    record = choose_experts(CONFIG, SELECTION, NORMAL, synthetic)
    assert [name for name, weight in record.weights.items() if weight] == ["base", "count"]


def test_structural_expert_does_not_displace_logical_one() -> None:
    synthetic = {"missing": scores(grain=HIGH, count=HIGH), "scratch": scores(grain=HIGH)}
    assert choose_experts(CONFIG, SELECTION, NORMAL, synthetic).weights["count"] == 1.0


def test_structural_expert_is_evaluated_on_surface_only() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"missing": scores(grain=HIGH), "scratch": scores(base=HIGH)})
    assert record.weights["grain"] == 0.0


def test_weights_of_each_kind_sum_to_one() -> None:
    surface = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base",), candidates=("grain", "noise")),
        arrangement=ExpertGroupConfig(candidates=("count",)),
    )
    nothing = np.full(30, -1.0)
    synthetic = {
        "scratch": {"base": nothing, "grain": HIGH, "noise": nothing, "count": nothing},
        "stain": {"base": nothing, "grain": nothing, "noise": HIGH, "count": nothing},
        "missing": {"base": nothing, "grain": nothing, "noise": nothing, "count": HIGH},
    }
    weights = choose_experts(CONFIG.model_copy(update={"selection": surface}), surface, NORMAL, synthetic).weights
    assert weights["count"] == 1.0
    assert min(weights.values()) > 0.0
    assert weights["base"] + weights["grain"] + weights["noise"] == pytest.approx(1.0)


def test_better_of_two_equivalent_experts_is_selected() -> None:
    almost = HIGH.copy()
    almost[:6] = -9.0
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"missing": scores(noise=HIGH, count=almost)})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 0.0, "noise": 1.0}


def test_families_count_equally() -> None:
    """Hand computation: the base detects nothing, `count` all of one family, and `noise` all of the other."""
    flat = {name: np.arange(4.0) for name in ("base", "grain", "count", "noise")}
    nothing = {name: np.full(4, -1.0) for name in flat}
    found = {**nothing, "count": np.full(4, 100.0)}
    synthetic = {"missing": found, "extra": found, "moved": {**nothing, "noise": np.full(4, 100.0)}}
    record = choose_experts(CONFIG, SELECTION, flat, synthetic)
    assert record.base_auroc == {"amount": 0.0, "place": 0.0}
    assert record.experts["count"].auroc == {"amount": 1.0, "place": 0.0}
    assert record.experts["count"].trial.gain == pytest.approx((1.0 + 0.0) / 2 - 0.5)


def test_logical_experts_are_judged_where_patches_are_normal() -> None:
    """The base sees 20 of 30 anomalies, all that `count` detects; `noise` detects the others."""
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    seen, hidden = np.r_[np.full(20, 1e6), np.full(10, 50.0)], np.r_[np.full(20, -1.0), np.full(10, 1e6)]
    missing = {"base": seen, "grain": seen, "count": np.where(seen > 99.0, seen, -1.0), "noise": hidden}
    record = choose_experts(CONFIG, SELECTION, flat, {"missing": missing})
    assert record.synthetic_anomalies == {"missing": 30}
    assert record.telling_anomalies == {"missing": 10}
    assert record.experts["count"].auroc == {"amount": 0.0}
    assert record.experts["noise"].auroc == {"amount": 1.0}


def test_base_alone_without_synthetic_anomalies() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {})
    assert record.weights == {"base": 1.0, "grain": 0.0, "count": 0.0, "noise": 0.0}
    assert record.fused_auroc == {}


def test_known_defects_count_as_much_as_all_synthetic_anomalies() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base", "grain")), arrangement=ExpertGroupConfig(base=("count", "noise"))
    )
    found, nothing = np.full(30, 1e6), np.full(30, -1.0)
    synthetic = {
        "scratch": {"base": found, "grain": found, "count": nothing, "noise": nothing},
        "missing": {"base": nothing, "grain": nothing, "count": found, "noise": found},
    }
    known = {
        "known_structural": {"base": found[:8], "grain": nothing[:8], "count": found[:8], "noise": nothing[:8]},
        "known_logical": {"base": nothing[:8], "grain": nothing[:8], "count": nothing[:8], "noise": found[:8]},
    }

    record = choose_experts(CONFIG, selection, flat, synthetic, known)

    # AUROC of `grain` and `count`: (1 + 0) / 2 = 0.5, so they keep the least weight.
    assert record.weights == pytest.approx(
        {"base": 0.5 / 0.52, "grain": 0.02 / 0.52, "count": 0.02 / 0.52, "noise": 0.5 / 0.52}
    )
    assert record.known_defects == {"known_structural": 8, "known_logical": 8}
    assert record.weights_without_known == {"base": 0.5, "grain": 0.5, "count": 0.5, "noise": 0.5}
    assert record.experts["noise"].auroc == {
        "surface": 0.0,
        "amount": 1.0,
        "known_structural": 0.0,
        "known_logical": 1.0,
    }
    assert record.reason("noise") == "always selected; weight 0.50 without known defects"


def test_known_defects_of_unknown_type_count_for_both_kinds() -> None:
    flat = {name: np.arange(100.0) for name in ("base", "grain", "count", "noise")}
    found, nothing = np.full(8, 1e6), np.full(8, -1.0)
    known = {"known": {"base": found, "grain": nothing, "count": found, "noise": nothing}}
    selection = ExpertSelectionConfig(
        surface=ExpertGroupConfig(base=("base", "grain")), arrangement=ExpertGroupConfig(base=("count", "noise"))
    )

    weights = choose_experts(CONFIG, selection, flat, {}, known).weights

    assert weights["base"] > 0.9 > 0.1 > weights["grain"]
    assert weights["count"] > 0.9 > 0.1 > weights["noise"]


def test_non_finite_anomaly_score_counts_as_detected() -> None:
    broken = np.full(30, np.inf)
    assert choose_experts(CONFIG, SELECTION, NORMAL, {"missing": scores(count=broken)}).weights["count"] == 1.0


def test_non_finite_normal_score_is_an_error() -> None:
    with pytest.raises(FitError, match="no finite score"):
        choose_experts(CONFIG, SELECTION, {**NORMAL, "count": np.full(40, np.nan)}, {"missing": scores()})


def test_fusion_uses_selected_weights() -> None:
    record = choose_experts(CONFIG, SELECTION, NORMAL, {"missing": scores(count=HIGH)})
    assert with_selected_weights(CONFIG, record).weights == record.weights
    assert with_selected_weights(CONFIG, None) is CONFIG


def test_experts_that_are_not_fitted_are_left_out() -> None:
    normal = {name: values for name, values in NORMAL.items() if name != "count"}
    found = {
        kind: {name: values[name] for name in normal}
        for kind, values in {"missing": scores(), "scratch": scores(base=HIGH)}.items()
    }

    record = choose_experts(CONFIG, SELECTION, normal, found)

    assert record.weights["count"] == 0.0
    assert [name for name, expert in record.experts.items() if not expert.is_fitted] == ["count"]
    assert record.lack == {"surface": 0.0, "arrangement": 0.5}
    assert record.reason("count").endswith("lack only 0.500 to an AUROC of 1")
