"""The dashboard shows the metrics of a night, as Prometheus reads them from Ray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fitted import write_fitted
from support.s3_server import free_ports

from uniad_ray.pipelines.cluster.metrics import METRICS

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_dashboard_shows_the_metrics_of_a_night(tmp_path: Path) -> None:
    write_fitted(tmp_path)
    command = [sys.executable, str(TESTS / "support/metrics_driver.py"), str(tmp_path), str(free_ports(1)[0])]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr[-3000:]
    series: dict[str, dict[str, float]] = {}
    for line in ended.stdout.splitlines():
        if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
            series.setdefault(match[1], {})[match[2] or ""] = float(match[3])
    dashboard = json.loads((TESTS.parent / "deploy/grafana/uniad-ray.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked = set().union(*(re.findall(r"\bray_\w+", re.sub(r'"[^"]*"', "", text)) for text in expressions))
    assert asked - set(series) == set()
    assert {name for spec in METRICS.values() for name in spec.exported} - set(series) == set()
    images = {
        decision: sum(value for tags, value in series["ray_uniad_ray_run_images_total"].items() if decision in tags)
        for decision in ('decision="normal"', 'decision="anomalous"', 'category="trays"')
    }
    assert images == {'decision="normal"': 1, 'decision="anomalous"': 1, 'category="trays"': 2}
    assert sum(series["ray_uniad_ray_ingest_files_total"].values()) == 2
    assert sum(series["ray_uniad_ray_run_chunks_waiting"].values()) == 0
