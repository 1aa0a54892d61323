"""The dashboard asks only for metrics and labels that exist, and for all of this project's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.dockerfile import ROOT

from uniad_ray.pipelines.cluster.metrics import METRICS

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/uniad-ray.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
EXPORTED = {name: spec for spec in METRICS.values() for name in spec.exported}
OF_RAY = {"ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_mem_total", "ray_tasks"}
"""Ray's own metrics on the dashboard; the test in tests/cluster finds them, too."""
_LABELS = re.compile(r"\b(?:by|without) ?\(([^)]*)\)")
_MATCHERS = re.compile(r"(\w+)\{([^}]*)\}")


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", re.sub(r'"[^"]*"', "", expression)))


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_expression_uses_existing_metrics_and_labels(title: str, target: dict[str, Any]) -> None:
    expression = target["expr"]
    found = names(expression)
    assert found, title
    assert found <= set(EXPORTED) | OF_RAY
    own = [EXPORTED[name] for name in found if name in EXPORTED]
    if not own:
        return
    allowed = set.intersection(*(set(spec.tags) for spec in own))
    asked = {label.strip() for group in _LABELS.findall(expression) for label in group.split(",")}
    if any(name.endswith("_bucket") for name in found):
        assert "le" in asked
        asked -= {"le"}
    asked |= {
        part.split("=")[0].strip("!~ ") for _, inner in _MATCHERS.findall(expression) for part in inner.split(",")
    }
    assert asked <= allowed
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= asked


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_counters_are_shown_as_rates(title: str, target: dict[str, Any]) -> None:
    expression = target["expr"]
    assert expression.count("(") == expression.count(")"), title
    for name in names(expression):
        if name in EXPORTED and EXPORTED[name].kind != "gauge":
            assert re.search(rf"\b(rate|increase)\({name}(\{{[^}}]*\}})?\[\$__\w+\]\)", expression), title


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set().union(*(names(target["expr"]) for _, target in TARGETS))
    assert [spec.name for spec in METRICS.values() if not shown & set(spec.exported)] == []


def test_panels_have_their_own_places_and_ids() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (panel["gridPos"]["x"] + column, panel["gridPos"]["y"] + line)
        for panel in panels
        for column in range(panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24
