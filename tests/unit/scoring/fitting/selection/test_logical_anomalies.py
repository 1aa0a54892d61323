from __future__ import annotations

import numpy as np

from uniad_ray.scoring.fitting.selection.logical_anomalies import telling_anomalies

NORMAL = {name: np.arange(10.0) for name in ("patch", "parts", "colours")}
STRUCTURAL, LOGICAL = ("patch",), ("parts", "colours")


def scores(patch: list[float], parts: list[float], colours: list[float]) -> dict[str, np.ndarray]:
    return {"patch": np.array(patch), "parts": np.array(parts), "colours": np.array(colours)}


def test_anomalies_with_new_patches_are_left_out() -> None:
    # The highest normal score is 9: an equal one shows nothing new.
    found = scores([9.0] * 5 + [9.5] * 3 + [0.0] * 4, [20.0] * 12, [float(number) for number in range(12)])
    kept = telling_anomalies(NORMAL, {"missing": found}, STRUCTURAL, LOGICAL)["missing"]
    assert kept["colours"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 8.0, 9.0, 10.0, 11.0]
    assert len(kept["patch"]) == len(kept["parts"]) == 9


def test_all_count_if_nearly_all_show_something_new() -> None:
    found = scores([0.0] * 7 + [50.0] * 20, [20.0] * 27, [20.0] * 27)
    assert len(telling_anomalies(NORMAL, {"missing": found}, STRUCTURAL, LOGICAL)["missing"]["patch"]) == 27


def test_changes_that_break_no_rule_are_left_out() -> None:
    hidden = [0.0] * 10
    kept = telling_anomalies(
        NORMAL,
        {
            # AUROCs of the better expert: 0.6, 0.7, and none, because the third shows something new.
            "turned": scores(hidden, [-1.0] * 4 + [99.0] * 6, [-1.0] * 10),
            "moved": scores(hidden, [-1.0] * 10, [-1.0] * 3 + [99.0] * 7),
            "extra": scores([50.0] * 10, [99.0] * 10, [99.0] * 10),
        },
        STRUCTURAL,
        LOGICAL,
    )
    assert list(kept) == ["moved"]


def test_surface_anomalies_and_known_defects_stay() -> None:
    found = {"scratch": scores([50.0], [0.0], [0.0]), "known_logical": scores([50.0], [0.0], [0.0])}
    assert telling_anomalies(NORMAL, found, STRUCTURAL, LOGICAL) == found


def test_scores_that_are_not_finite_show_something_new() -> None:
    found = scores([np.inf] * 2 + [0.0] * 8, [99.0] * 10, [99.0] * 10)
    assert len(telling_anomalies(NORMAL, {"missing": found}, STRUCTURAL, LOGICAL)["missing"]["patch"]) == 8


def test_without_logical_experts_no_kind_tells_them_apart() -> None:
    found = scores([0.0] * 10, [99.0] * 10, [99.0] * 10)
    assert telling_anomalies(NORMAL, {"missing": found}, STRUCTURAL, ()) == {}
