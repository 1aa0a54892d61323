"""The doctor on a real Ray."""

from __future__ import annotations

import pytest

from uniad_ray.pipelines.doctor import doctor, job


@pytest.mark.usefixtures("ray_cluster")
def test_doctor_runs_a_task_on_each_node_and_loads_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor(overrides=["expert_set=patch"])
    found = {check.name: check for check in report.checks}
    assert {found[name].status for name in ("versions", "versions agree", "Ray", "node", "weights")} == {"ok"}
    monkeypatch.setattr(job, "NODE_SECONDS", 0.0)
    report = doctor(overrides=["expert_set=patch"])
    (node,) = [check for check in report.checks if check.name == "node"]
    assert (node.status, report.warnings >= 1) == ("warning", True)
