from __future__ import annotations

import re

import pytest
from support.recorded import Recorded

from uniad_ray.pipelines.cluster.metrics import METRICS, MetricSpec
from uniad_ray.pipelines.score.job import record_chunk

CHUNK = {
    "category": "lid",
    "rows": 10,
    "errors": 2,
    "anomalous": 3,
    "in_review": 1,
    "decode_seconds": 0.5,
    "score_seconds": 2.0,
    "write_seconds": 0.25,
    "store_retries": 3,
}


def test_chunk_is_recorded_by_decision_and_stage() -> None:
    metrics = Recorded()
    record_chunk(metrics, CHUNK, 7)
    record_chunk(metrics, CHUNK | {"errors": 0, "category": "cap"}, 6)
    assert metrics.counted("uniad_ray_run_images") == {
        ("lid", "normal"): 4,
        ("lid", "review"): 1,
        ("lid", "anomalous"): 3,
        ("lid", "error"): 2,
        ("cap", "normal"): 6,
        ("cap", "review"): 1,
        ("cap", "anomalous"): 3,
    }
    assert metrics.counted("uniad_ray_run_stage_seconds")["lid", "score"] == 2.0
    assert metrics.counted("uniad_ray_run_store_retries") == {(): 6}
    assert list(metrics.gauges.values()) == [6]


@pytest.mark.parametrize("spec", METRICS.values(), ids=lambda spec: spec.name)
def test_names_follow_prometheus(spec: MetricSpec) -> None:
    assert re.fullmatch(r"uniad_ray_[a-z_]+", spec.name)
    # Prometheus adds these itself.
    assert not spec.name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert spec.description.endswith(".")
    assert bool(spec.boundaries) == (spec.kind == "histogram")
    assert list(spec.boundaries) == sorted(set(spec.boundaries))


def test_exported_names_depend_on_the_kind() -> None:
    assert METRICS["uniad_ray_requests"].exported == ("ray_uniad_ray_requests_total",)
    assert METRICS["uniad_ray_images_inside"].exported == ("ray_uniad_ray_images_inside",)
    assert METRICS["uniad_ray_request_seconds"].exported[0] == "ray_uniad_ray_request_seconds_bucket"
