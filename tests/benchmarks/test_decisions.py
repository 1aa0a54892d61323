from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    return load_script("benchmarks/decisions.py")


def test_decisions_by_hand(script: ModuleType) -> None:
    normal, anomalous = np.array([0.1, 0.2, 0.3, 2.5]), np.array([0.25, 1.0, 1.5, 2.2, 9.0])
    found = script.decisions(np.array([0.1, 0.2]), normal, anomalous, 2.0)
    assert (found["false_alarms"], found["realised_rate"]) == (1, 25.0)
    assert found["recall"] == pytest.approx(40.0)
    # A threshold of 0.3 has one false alarm, too.
    assert found["best_recall"] == pytest.approx(80.0)
    assert found["lost_recall"] == pytest.approx(40.0)
    assert 0 <= found["drift"]["p_value"] <= 1
    nothing = script.decisions(np.array([0.1, 0.2]), normal, anomalous, 0.0)
    assert (nothing["realised_rate"], nothing["recall"], nothing["lost_recall"]) == (100.0, 100.0, 0.0)


def test_summary_ignores_failed_products(script: ModuleType) -> None:
    one = {"realised_rate": 1.0, "recall": 90.0, "lost_recall": 2.0, "drift": {"p_value": 0.01}}
    two = {"realised_rate": 3.0, "recall": 80.0, "lost_recall": 0.0, "drift": {"p_value": 0.5}}
    found = script.summary({"1": one, "2": two, "3": {"failed": "x"}})
    assert (found["products"], found["failed"], found["drifting"]) == (2, 1, 1)
    assert found["realised_rate"] == {"mean": 2.0, "highest": 3.0}
    assert found["recall"] == {"mean": 85.0, "lowest": 80.0}
    assert script.summary({"3": {"failed": "x"}}) == {"products": 0, "failed": 1}


def test_run_resumes(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    one = {"realised_rate": 1.0, "recall": 90.0, "lost_recall": 2.0, "drift": {"p_value": 0.01}}

    def measure(seed: int, *_: Any) -> dict[str, Any]:
        measured.append(seed)
        return {"failed": "x"} if seed == 2 and measured.count(2) == 1 else one

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr("uniad_ray.pipelines.cluster.session.ray_session", contextlib.nullcontext)
    options = argparse.Namespace(
        seeds=["1-2"], results=tmp_path / "r.json", cache=tmp_path, train=2, good=2, logical=2, structural=2
    )
    options.expert_set, options.rate, options.overrides = "patch", 0.01, []
    assert script.run(options)["summary"]["failed"] == 1
    found = script.run(options)
    assert measured == [1, 2, 2]
    assert found["summary"]["products"] == 2
    assert json.loads((tmp_path / "r.json").read_text()) == found
