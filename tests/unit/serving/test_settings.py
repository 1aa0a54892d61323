from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from uniad_ray.errors import ConfigError
from uniad_ray.serving.settings import (
    BatchSettings,
    ReplicaSettings,
    RequestLimits,
    ServeSettings,
    named_runs,
)

limits = st.builds(RequestLimits, seconds=st.floats(0.01, 600), images=st.integers(1, 1024))
batches = st.builds(BatchSettings, images=st.integers(1, 256), wait_seconds=st.floats(0, 1))


@st.composite
def replicas(draw: st.DrawFn) -> ReplicaSettings:
    fewest = draw(st.integers(1, 1000))
    return ReplicaSettings(
        fewest=fewest, most=draw(st.integers(fewest, 1000)), queued_images=draw(st.integers(1, 100_000))
    )


@given(st.builds(ServeSettings, bundles=st.just("b"), batch=batches, limits=limits, replicas=replicas()))
def test_serve_limits_are_consistent(settings: ServeSettings) -> None:
    from ray import serve

    options = settings.scorer_options()
    deployment = serve.deployment(**options)(type("Scorer", (), {}))
    # Serve passes enough images to fill a batch and the next one.
    assert deployment.max_ongoing_requests >= settings.batch.images + 1
    assert deployment.max_queued_requests >= 1
    assert options["graceful_shutdown_timeout_s"] >= settings.limits.seconds
    autoscaling = options.get("autoscaling_config")
    assert (autoscaling is None) == (settings.replicas.most == settings.replicas.fewest)
    if autoscaling is not None:
        # Otherwise no replica ever exceeds its target, and Serve never adds one.
        assert autoscaling["target_ongoing_requests"] < deployment.max_ongoing_requests
        assert autoscaling["min_replicas"] <= autoscaling["initial_replicas"] <= autoscaling["max_replicas"]


@given(st.builds(ServeSettings, bundles=st.just("b"), batch=batches, limits=limits, replicas=replicas()))
def test_settings_round_trip_through_json(settings: ServeSettings) -> None:
    assert ServeSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"replicas": {"fewest": 3, "most": 2}}, "2 is below fewest, 3"),
        ({"batch": {"images": 0}}, "greater than or equal to 1"),
        ({"limits": {"seconds": 0}}, "greater than 0"),
        ({"limits": {"image_pixels": 200_000_000}}, "less than or equal to 178956970"),
        ({"bundles": ""}, "at least 1 character"),
        ({"bundles": "ftp://host/x"}, "scheme `ftp` is not supported"),
        ({"runs": {"x": "ftp://host/x"}}, "scheme `ftp` is not supported"),
        ({"reference_prefixes": ["s3://plant/line-1"]}, "with a trailing slash"),
        ({"reference_prefixes": ["/etc/"]}, "write s3://BUCKET/"),
        ({"reference_prefixes": ["s3:///x/"]}, "write s3://BUCKET/"),
        ({"other": 1}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_settings_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServeSettings.model_validate({"bundles": "b", **changes})


def test_runs_have_unique_folder_names() -> None:
    assert named_runs(["/a/monday", "s3://plant/runs/tuesday"]) == {
        "monday": "/a/monday",
        "tuesday": "s3://plant/runs/tuesday",
    }
    with pytest.raises(ConfigError, match="another run is also called 'monday'"):
        named_runs(["/a/monday", "/b/monday"])
