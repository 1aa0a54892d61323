from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.scoring.fitting.selection.separation import Separation, mean_auroc

SURFACE = (("surface",),)


def separation(normal: np.ndarray, **anomalies: np.ndarray) -> Separation:
    return Separation(
        np.asarray(normal, dtype=float), {kind: np.asarray(each, dtype=float) for kind, each in anomalies.items()}
    )


def test_kinds_of_a_family_count_equally() -> None:
    found = separation([0.0, 1.0], scratch=[2.0, 2.0, 2.0], stain=[-1.0], missing=[0.5, 3.0]).aurocs()

    assert found == {"surface": 0.5, "amount": 0.75}


def test_known_defects_are_families_of_their_own() -> None:
    found = separation([0.0, 1.0], scratch=[2.0], known_structural=[0.5], known=[-1.0]).aurocs()

    assert found == {"surface": 1.0, "known_structural": 0.5, "known": 0.0}


def test_non_finite_anomalies_count_as_detected() -> None:
    assert separation([0.0, 1.0], scratch=[np.nan, -1.0]).aurocs() == {"surface": 0.5}


def test_groups_and_their_families_count_equally() -> None:
    groups = (("amount", "place"), ("known",))

    assert mean_auroc({"amount": 0.8, "place": 0.6, "surface": 0.1, "known": 0.5}, groups) == pytest.approx(0.6)
    assert mean_auroc({"amount": 0.8, "surface": 0.1}, groups) == pytest.approx(0.8)
    assert mean_auroc({"surface": 0.1}, groups) == 0.5


def test_a_clear_gain_is_sure_and_a_small_one_is_not() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=20)
    before = separation(normal, scratch=rng.normal(0.5, 1.0, 30))
    clear = separation(normal, scratch=before.anomalies["scratch"] + 3.0)
    small = separation(normal, scratch=before.anomalies["scratch"] + np.r_[0.4, np.zeros(28), -0.3])

    assert clear.lowest_gain(before, SURFACE) > 0.1
    assert small.aurocs()["surface"] >= before.aurocs()["surface"]
    assert small.lowest_gain(before, SURFACE) <= 0.0


def test_the_lowest_gain_equals_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    normal, anomalous, better = rng.normal(size=15), rng.normal(0.8, 1.0, 25), rng.normal(1.5, 1.0, 25)
    before, after = separation(normal, scratch=anomalous), separation(normal, scratch=better)
    gains = []
    for _ in range(4000):
        drawn_normal, drawn = rng.integers(0, 15, 15), rng.integers(0, 25, 25)
        aurocs = [
            np.mean([(score > normal[drawn_normal]).mean() for score in scores[drawn]])
            for scores in (better, anomalous)
        ]
        gains.append(aurocs[0] - aurocs[1])

    assert after.lowest_gain(before, SURFACE) == pytest.approx(np.quantile(gains, 0.05), abs=0.02)


def test_other_families_have_no_gain() -> None:
    before, after = separation([0.0, 1.0], missing=[0.0]), separation([0.0, 1.0], missing=[9.0])

    assert after.lowest_gain(before, SURFACE) == 0.0
    assert after.lowest_gain(before, (("amount",),)) > 0.0
